"""The frontier without training: how small a network may be as it is, in INT8, before it loses on validation speakers.

The sizes are tested from the largest down, each at the full confidence, and none counts after the first that does not
pass: a fixed-sequence test, whose chance of a wrong pass is that of one test (Maurer, Hothorn and Lehmacher, "Multiple
comparisons in drug clinical trials and preclinical assays", 1995).
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from tqdm import tqdm

from src.common.params import Margins
from src.evaluate import validation
from src.evaluate.validation import Loss
from src.quantize import qat
from src.search import trial
from src.search.structure import Structures
from src.search.study import print_line
from src.search.trial import Setup, Validation

SIZES = 12
RATIO = 0.75  # of the multiplications, from one size to the next; between two of them the trials look
ABOVE = 1  # size that is tested though it should lose nothing
FAR = 4  # margins: what loses so much is broken, however wide its interval

Point = dict  # share, objective, gmacs, size_mb, and `losses` {eer, top1: a Loss as a dict}


def shares(structures: Structures) -> list[float]:
    """SIZES shares, from ABOVE above the smallest that is predicted to move the embedding by less than INT8 does.

    The prediction is from calibration speech: where the sequence of tests begins does not depend on what they test.
    """
    powers = [RATIO**step for step in range(1, SIZES + 1)]
    quiet = [structures.error(structures.of_share(share)) / 2 < qat.QUANTISED for share in powers]
    begin = max(1, sum(quiet) - ABOVE)
    return [RATIO ** (begin + step) for step in range(SIZES)]


def trace(setup: Setup, reference: Validation, shares: Sequence[float]) -> Iterator[Point]:
    """The Points, from the largest size down to the first that is shown to lose more than the margins, or loses far more.

    reference: of the teacher; shares: of the multiplications, from the largest down.
    """
    previous = None
    for share in tqdm(shares, "frontier", disable=None, unit="size", leave=False):
        structure = setup.source.structures.of_share(share)
        if structure == previous:  # no smaller one can be made
            return
        previous = structure
        network = setup.source.structures.network(structure)
        gmacs, megabytes = setup.source.cost(network, setup.frames)
        outcome = trial.validate(setup.source.untrained(network).to(setup.device), setup)
        losses = validation.losses(outcome.figures, reference.figures)
        print_line(f"untrained: {gmacs:.4f} GMACs, objective {outcome.objective:.4f}, {trial.change(losses)}")
        yield {
            "share": share,
            "objective": outcome.objective,
            "gmacs": gmacs,
            "size_mb": megabytes,
            "losses": {key: asdict(loss) for key, loss in losses.items()},
        }
        for key in validation.METRICS:
            margin = getattr(setup.margins, key)
            if losses[key].low() > margin or losses[key].value > FAR * margin:
                return


def losses(point: Point) -> dict[str, Loss]:
    """The losses of a point, or of the attributes of a trial."""
    return {key: Loss(**loss) for key, loss in point["losses"].items()}


def passing(points: Sequence[Point], margins: Margins, level: float) -> list[bool]:
    """For each, whether it and all larger ones pass at a confidence (`validation.assured`)."""
    passed, chain = [], True
    for point in points:
        chain = chain and validation.assured(losses(point), margins, level)
        passed.append(chain)
    return passed


def knee(points: Sequence[Point], margins: Margins) -> float:
    """The share of the smallest point whose losses, as measured, are below the margins; 1 where there is none."""
    below = [
        point["share"]
        for point in points
        if all(loss.value < getattr(margins, key) for key, loss in losses(point).items())
    ]
    return min(below, default=1.0)
