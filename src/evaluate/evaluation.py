"""The evaluation of a model, as every stage that makes one does it."""

from collections.abc import Sequence
from contextlib import nullcontext

from src.common.params import Params
from src.data.manifest import Row
from src.evaluate import accuracy, extract, result, test_set, validation


def evaluate(model: result.Model, name: str, rows: Sequence[Row], params: Params, reference: str | None = None) -> dict:
    """Embed, score, summarise: what `accuracy.summarise` gives and, as `validation`, what `validation.summary` gives,
    with the files that they follow from.

    name: of the model, which the files are named by (see `result.write` and `validation.write`). rows: all of the
    manifest. reference: name of a model evaluated before on the same rows, to give the differences to it. Raises
    InputError as the functions that it calls.
    """
    setup = test_set.prepare(rows, params)
    speech = validation.speech(setup.validation[0], test_set.enrolments(params), setup.test)
    other = (result.read(reference, setup.test), validation.read(reference, speech)) if reference else None
    path = extract.STORES / f"{name}.jsonl"
    embedder = extract.resumable(model, path, params.scheduler) if not callable(model) else nullcontext(model)
    with embedder as embed:
        embeddings = result.embed(embed, setup)
        outcome = result.score(embeddings, setup)
        result.write(name, setup.test, outcome)
        figures = validation.measure(embeddings.validation, speech, embeddings.cohort, setup.top)
        validation.write(name, figures)
    compared = validation.losses(figures, other[1]) if other else None
    return {
        **accuracy.summarise(setup.test, outcome, params, other and other[0]),
        "validation": validation.summary(speech, figures, compared, params.evaluate.margins),
    }
