"""The model card: metadata that the hub reads, and a text that says what the model is for and where it fails."""

import re
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from src.evaluate.accuracy import KEYS
from src.reporting import breakdown, words
from src.reporting.numbers import MEASURES, difference, level, points, share
from src.reporting.results import Model, Results
from src.reporting.tables import markdown

COST = ("gmacs", "gflops", "int8_mac_share", "params_million", "size_mb")
TAGS = ["speaker-verification", "speaker-recognition", "speaker-embeddings", "ecapa-tdnn", "onnx"]
UNSTATED = {"license": "other", "license_name": "not-stated"}


def card(results, model) -> str:
    """README.md of a release: `model` of the report's results."""
    return (
        _environment()
        .get_template("README.md.j2")
        .render(metadata=metadata(results, model).to_yaml(), **text(results, model))
    )


def facts(results: Results, model: Model) -> dict:
    """What `config.json` says of the model: its name and title, its accuracy on the speakers that the verdict is about,
    and what it costs."""
    group = results.groups[0]
    figures = model.over(group)
    keys = [*(key + end for key in KEYS for end in ("", "_ci")), "difference", "trials", "target_trials", "speakers"]
    metrics = {
        "speakers_are": group,
        **{key: figures[key] for key in keys if key in figures},
        **{key: model.cost[key] for key in COST},
    }
    return {"model": model.name, "title": model.title, "metrics": metrics}


def metadata(results, model) -> ModelCardData:
    """What the hub reads, with every accuracy figure and its interval.

    A name without an owner (`ecapa-mini`) is of something that is not on the hub; no repository there can have it.
    """
    release, params = results.params.release, results.params
    quantised = model.name != "fp32"
    terms = (
        {"license": release.license}
        if release.license
        else ({"license": "apache-2.0"} if params.encoder.source == words.SHIPPED else UNSTATED)
    )
    language = release.language or ("en" if params.data.source == "synthetic" else None)
    return ModelCardData(
        **terms,
        language=language,
        library_name="onnx",
        pipeline_tag="audio-classification",
        tags=TAGS + ["int8", "quantized"] * quantised,
        base_model=base_model(params.encoder),
        base_model_relation="quantized" if quantised else None,
        datasets=[dataset(params.data)],
        metrics=["accuracy", "eer", "min_dcf", "cllr"],
        model_name=f"{base_model(params.encoder).split('/')[-1]}, {model.title}",
        eval_results=list(_results(results, model)),
    )


def base_model(encoder):
    """The encoder's hub id, or the name of its folder."""
    return _name(encoder.source) if Path(encoder.source).is_dir() else encoder.source


def dataset(data):
    """The data set's hub id, or a name for what is not on the hub."""
    return {"synthetic": "espeak-ng-synthetic", "folder": _name(data.path or ""), "hub": data.repo}[data.source]


def _name(path):
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(path).resolve().name).strip("-.") or "local"


def _results(results, model):
    group, data = results.groups[0], results.params.data
    figures, hub = model.over(group), data.source == "hub"
    for key in KEYS:
        measure, ci = MEASURES[key], figures[f"{key}_ci"]
        value, low, high = (round(measure.scale * number, 6) for number in (figures[key], ci["low"], ci["high"]))
        yield EvalResult(
            task_type="audio-classification",
            task_name="speaker verification and identification",
            dataset_type=dataset(data),
            dataset_name=dataset(data),
            dataset_split="test",
            dataset_config=data.config if hub else None,
            dataset_revision=data.revision if hub else None,
            dataset_args={key: figures[key] for key in ("speakers", "trials", "target_trials")},
            metric_type={"top1_accuracy": "accuracy"}.get(key, key),
            metric_name=f"{measure.title}{',' * bool(measure.unit)}{measure.unit} (95 % interval {level(key, figures)[1]})",
            metric_value=value,
            metric_args={"confidence_level": 0.95, "low": low, "high": high},
        )


def text(results, model):
    """What the template shows."""
    group, others = results.groups[0], [each.title for each in results.models.values() if each.name != "fp32"]
    figures, rows = model.over(group), breakdown.load()[0]
    compared = "difference" in figures
    table = [
        [
            MEASURES[key].title + (f",{MEASURES[key].unit}" if MEASURES[key].unit else ""),
            "{} [{}]".format(*level(key, figures)),
            *(["{} [{}]".format(*difference(key, figures))] if compared else []),
        ]
        for key in KEYS
    ]
    return {
        "title": model.title,
        "base": base_model(results.params.encoder),
        "shipped": results.params.encoder.source == words.SHIPPED,
        "synthetic": results.params.data.source == "synthetic",
        "stated": results.params.release.license or results.params.encoder.source == words.SHIPPED,
        "group": words.named(group, results),
        "material": words.material(results),
        "table": markdown(["measure", "value [95 %]", *["less fp32’s [95 %]"] * compared], table),
        "judged": words.margin(figures, results) if compared else "",
        "margin": points(results.params.evaluate.margin),
        "normalisation": results.params.evaluate.normalisation,
        "enrolments": results.params.evaluate.enrolments,
        "marked": results.marked,
        "others": others,
        "gmacs": f"{model.cost['gmacs']:.3f}",
        "seconds": f"{results.profile['seconds']:g}",
        "integer": share(model.cost["int8_mac_share"]),
        "size": f"{model.cost['size_mb']:.2f}",
        "parameters": f"{model.cost['params_million']:.2f}",
        "about_conditions": breakdown.ABOUT,
        "conditions": breakdown.conditions_table([row for row in rows if row["model"] in ("fp32", model.name)]),
        "shortest": f"{results.params.data.min_seconds:g}",
        "longest": f"{results.params.data.max_seconds:g}",
    }


def _environment():
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
