"""The model card: metadata that the hub reads, and a text that says what the model is for and where it fails."""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from src.common import layout
from src.common.params import Data, Encoder
from src.evaluate.accuracy import KEYS
from src.reporting import breakdown, decision, prose
from src.reporting.numbers import MEASURES, difference, level
from src.reporting.results import Model, Results
from src.reporting.tables import markdown

COST = ("gmacs", "gflops", "int8_mac_share", "params_million", "size_mb")
TAGS = ["speaker-verification", "speaker-recognition", "speaker-embeddings", "onnx"]
TEMPLATES = Path(__file__).parent / "templates"
UNSTATED = {"license": "other", "license_name": "not-stated"}
# What a static Space reads, where the release is put on the hub as one; a model repository passes over it.
SPACE = {"title": "One speaker or two?", "sdk": "static", "app_file": "index.html"}


def card(results: Results, model: Model) -> str:
    """README.md of a release: `model` of the report's results."""
    template = prose.environment(TEMPLATES).get_template("README.md.j2")
    return template.render(metadata=metadata(results, model).to_yaml(), **text(results, model))


def facts(results: Results, model: Model) -> dict:
    """What `config.json` says of the model: its name and title, its accuracy on the test speakers that the figures are
    about, what it costs, and how it was chosen."""
    group = results.groups[0]
    figures = model.over(group)
    keys = [*(key + end for key in KEYS for end in ("", "_ci")), "difference", "trials", "target_trials", "speakers"]
    accuracy = {key: figures[key] for key in keys if key in figures}
    metrics = {"speakers_are": group, **accuracy, **{key: model.cost[key] for key in COST}}
    return {"model": model.name, "title": model.title, "metrics": metrics, "choice": decision.facts(results)}


def metadata(results: Results, model: Model) -> ModelCardData:
    """What the hub reads, with every accuracy figure and its interval.

    A name without an owner (`ecapa-mini`) is of something that is not on the hub; no repository there can have it.
    """
    release, params = results.params.release, results.params
    quantised = model.name != "fp32"
    license = release.license or ("apache-2.0" if params.encoder.source == layout.SHIPPED else None)
    terms: dict[str, Any] = {"license": license} if license else UNSTATED
    return ModelCardData(
        **terms,
        language=release.language or ("en" if params.data.source == "synthetic" else None),
        library_name="onnx",
        pipeline_tag="audio-classification",
        tags=[*TAGS, results.profile["network"].lower(), *["int8", "quantized"] * quantised],
        base_model=base_model(params.encoder),
        base_model_relation="quantized" if quantised else None,
        datasets=[dataset(params.data)],
        metrics=["accuracy", "eer", "min_dcf", "cllr"],
        model_name=f"{base_model(params.encoder).split('/')[-1]}, {model.title}",
        eval_results=list(_results(results, model)),
        **SPACE,
    )


def base_model(encoder: Encoder) -> str:
    """The encoder's hub id, or the name of its folder."""
    return _name(encoder.source) if Path(encoder.source).is_dir() else encoder.source


def dataset(data: Data) -> str:
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
            metric_name=f"{_titled(key)} (95 % interval {level(key, figures)[1]})",
            metric_value=value,
            metric_args={"confidence_level": 0.95, "low": low, "high": high},
        )


def _titled(key):
    return f"{MEASURES[key].title},{MEASURES[key].unit}" if MEASURES[key].unit else MEASURES[key].title


def text(results: Results, model: Model) -> dict:
    """What the template shows, beside `metadata`."""
    figures, rows = model.over(results.groups[0]), breakdown.load()[0]
    compared = "difference" in figures
    compared_rows = [row for row in rows if row["model"] in ("fp32", model.name)]
    table = [
        [
            _titled(key),
            "{} [{}]".format(*level(key, figures)),
            *(["{} [{}]".format(*difference(key, figures))] if compared else []),
        ]
        for key in KEYS
    ]
    return {
        **prose.values(results),
        "model": model,
        "base": base_model(results.params.encoder),
        "stated": results.params.release.license or results.params.encoder.source == layout.SHIPPED,
        "table": markdown(["measure", "value [95 %]", *["less fp32’s [95 %]"] * compared], table),
        "about_conditions": breakdown.ABOUT,
        "condition_losses": breakdown.losses(compared_rows) if compared else "",
        "conditions": breakdown.conditions_table(compared_rows),
    }
