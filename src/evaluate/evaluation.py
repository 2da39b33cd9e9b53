"""The evaluation of a model, as every stage that makes one does it."""

from collections.abc import Sequence
from contextlib import nullcontext

from src.common.params import Params
from src.data.manifest import Row
from src.evaluate import accuracy, extract, result, test_set, validation


def evaluate(model: result.Model, name: str, rows: Sequence[Row], params: Params, reference: str | None = None) -> dict:
    """Embed, score, summarise: what `accuracy.summarise` gives and, as `validation` and `confirmation`, what
    `validation.summary` gives of the validation speakers and of those of the test, with the files that they follow from.
    There is no `confirmation` where the trials are of a list or of a protocol, which say themselves what is compared.

    name: of the model, which the files are named by (see `result.write` and `validation.write`). rows: all of the
    manifest. reference: name of a model evaluated before on the same rows, to give the differences to it. Raises
    InputError as the functions that it calls.
    """
    setup = test_set.prepare(rows, params)
    splits = {"validation": validation.speech(setup.validation[0], test_set.enrolments(params), setup.test)}
    if params.evaluate.protocol == "pairs" and not params.data.trials:
        confirming = validation.confirming(setup.test, params.evaluate.enrolments)
        splits |= {"confirmation": confirming} if confirming else {}
    other = result.read(reference, setup.test) if reference else None
    others = {split: validation.read(reference, split, speech) for split, speech in splits.items()} if reference else {}
    path = extract.STORES / f"{name}.jsonl"
    embedder = extract.resumable(model, path, params.scheduler) if not callable(model) else nullcontext(model)
    with embedder as embed:
        embeddings = result.embed(embed, setup)
        outcome = result.score(embeddings, setup)
        result.write(name, setup.test, outcome)
        summary = accuracy.summarise(setup.test, outcome, params, other)
        place = {row.utt_id: index for index, row in enumerate(setup.test.rows)}
        for split, speech in splits.items():
            if split == "validation":
                heard = embeddings.validation
            else:
                heard = embeddings.test[[place[row.utt_id] for row in speech.rows]]
            figures = validation.measure(heard, speech, embeddings.cohort, setup.top)
            validation.write(name, split, figures)
            compared = validation.losses(figures, others[split]) if others else None
            margins = params.evaluate.margins if split == "validation" else None
            summary[split] = validation.summary(speech, figures, compared, margins)
    return summary
