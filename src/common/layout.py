"""Where the files of the pipeline lie, by model and by stage, relative to the repository's root."""

from pathlib import Path

MODELS = ("fp32", "ptq", "qat")
LOGMEL = "logmel"  # the system without a model, scored as a model is
STAGES = {"fp32": "baseline", LOGMEL: "baseline", "ptq": "ptq", "qat": "qat_search"}  # that evaluates it
SHIPPED = "models/pretrained/ecapa-mini"  # the encoder that comes with the repository, `small("ecapa")`
METRICS = Path("metrics")
RELEASE, CARD = METRICS / "release.json", METRICS / "card.md"  # the model that the report chooses, and its model card


def model(name: str) -> Path:
    """The ONNX file of one of MODELS."""
    return Path("models") / f"{name}.onnx"


def small(network: str) -> str:
    """The small encoder of a kind of network that the stage `pretrain` makes."""
    return f"models/pretrained/{network}-mini"


def scores(name: str) -> Path:
    """The score of every verification trial."""
    return METRICS / "scores" / f"{name}.csv"


def evaluation(name: str) -> Path:
    """The folder of what else the evaluation of a model leaves: ranks, calibration, cohort, validation and, of INT8 models,
    latency."""
    return METRICS / "evaluation" / name


def ranks(name: str) -> Path:
    return evaluation(name) / "ranks.csv"


def calibration(name: str) -> Path:
    return evaluation(name) / "calibration.json"


def cohort(name: str) -> Path:
    """The voices that a model's scores are normalised with; there where they are."""
    return evaluation(name) / "cohort.npy"


def judged(name: str, split: str) -> Path:
    return evaluation(name) / f"{split}.csv"


def latency(name: str) -> Path:
    """The times of a model; those of fp32 are of the stage `profile`, which times it beside SpeechBrain."""
    return METRICS / "latency.json" if name == "fp32" else evaluation(name) / "latency.json"


def metrics(stage: str) -> Path:
    """The few figures of a stage that a person compares, rounded."""
    return METRICS / f"{stage}.json"


def details(stage: str) -> Path:
    """Everything that a stage measured."""
    return METRICS / "details" / f"{stage}.json"


def table(name: str) -> Path:
    """A table that is drawn."""
    return METRICS / f"{name}.csv"
