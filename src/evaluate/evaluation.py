"""The evaluation of a model, as every stage that makes one does it."""

from collections.abc import Sequence
from contextlib import nullcontext

from src.common.params import Params
from src.data.manifest import Row
from src.evaluate import accuracy, extract, result, test_set


def evaluate(model: result.Model, name: str, rows: Sequence[Row], params: Params, reference: str | None = None) -> dict:
    """Embed, score, summarise: what `accuracy.summarise` gives, with the files that it follows from.

    name: of the model, which the files are named by (see `result.write`). rows: all of the manifest. reference: name of
    a model evaluated before on the same rows, to give the differences to it. Raises InputError as the functions that it
    calls.
    """
    setup = test_set.prepare(rows, params)
    other = result.read(reference, setup.test) if reference else None
    path = extract.STORES / f"{name}.jsonl"
    embedder = extract.resumable(model, path, params.scheduler) if not callable(model) else nullcontext(model)
    with embedder as embed:
        outcome = result.score(result.embed(embed, setup), setup)
        result.write(name, setup.test, outcome)
    return accuracy.summarise(setup.test, outcome, params, other)
