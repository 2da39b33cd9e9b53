"""Numbers as text."""

from collections.abc import Sequence
from dataclasses import dataclass

from src.runtime.errors import count as count

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Measure:
    """How an accuracy key is named and shown: multiplied by `scale`, with `unit`; differences in `points`."""

    title: str
    scale: int = 1
    unit: str = ""
    points: str = ""
    decimals: int = 3
    higher_is_better: bool = False


MEASURES = {
    "top1_accuracy": Measure("top-1", 100, " %", " points", 2, higher_is_better=True),
    "eer": Measure("EER", 100, " %", " points", 2),
    "min_dcf_0.01": Measure("minDCF 0.01"),
    "min_dcf_0.05": Measure("minDCF 0.05"),
    "cllr": Measure("Cllr"),
    "min_cllr": Measure("minimum Cllr"),
    "act_dcf_0.01": Measure("actual DCF 0.01"),
    "act_dcf_0.05": Measure("actual DCF 0.05"),
    "fnmr_at_fmr_0.01": Measure("FNMR at FMR 1 %", 100, " %", " points", 2),
    "fnmr_at_fmr_0.001": Measure("FNMR at FMR 0.1 %", 100, " %", " points", 2),
    "top1": Measure("top-1", 100, " %", " points", 2, higher_is_better=True),
    "fnir": Measure("FNIR at FPIR 1 %", 100, " %", " points", 2),
    "share": Measure("identified", 100, " %", " points", 2, higher_is_better=True),
}
MOST_DECIMALS = 4


def fixed(value: float, decimals: int, sign: bool = False) -> str:
    """`value` with a typographic minus, and a plus if `sign`; never -0."""
    text = f"{abs(value):.{decimals}f}"
    if float(text) == 0:
        return text
    return (MINUS if value < 0 else "+" if sign else "") + text


def places(values: Sequence[float], decimals: int) -> int:
    """Decimals, from `decimals` to MOST_DECIMALS, at which no value looks like 0 without being 0."""

    def hides(value):
        return value != 0 and float(f"{value:.{decimals}f}") == 0

    while decimals < MOST_DECIMALS and any(map(hides, values)):
        decimals += 1
    return decimals


def level(key: str, figures: dict) -> tuple[str, str]:
    """(value, its interval) of an accuracy key, without unit."""
    measure = MEASURES[key]
    ci = figures[f"{key}_ci"]
    value, low, high = (measure.scale * number for number in (figures[key], ci["low"], ci["high"]))
    decimals = measure.decimals
    return fixed(value, decimals), f"{fixed(low, decimals)} to {fixed(high, decimals)}"


def with_unit(key: str, figures: dict) -> str:
    """An accuracy key as `74.77 % (67.17 to 81.71)`."""
    value, interval = level(key, figures)
    return f"{value}{MEASURES[key].unit} ({interval})"


def difference(key: str, figures: dict) -> tuple[str, str]:
    """(difference to fp32, its interval) of an accuracy key, signed, without unit."""
    numbers, decimals = _difference(key, figures)
    value, low, high = (fixed(number, decimals, sign=True) for number in numbers)
    return value, f"{low} to {high}"


def largest_loss(key: str, figures: dict) -> str:
    """The end of the difference's interval at which the model is worst, as a loss, without unit."""
    (_, low, high), decimals = _difference(key, figures)
    return fixed(-low if MEASURES[key].higher_is_better else high, decimals)


def _difference(key, figures):
    measure = MEASURES[key]
    numbers = [measure.scale * figures["difference"][key][name] for name in ("value", "low", "high")]
    return numbers, places(numbers, measure.decimals)


def points(fraction: float) -> str:
    """A difference of rates: `0.50 points`."""
    return f"{fixed(100 * fraction, places([100 * fraction], 2))} points"


def significant(value: float, digits: int = 3) -> str:
    """`value` to so many significant digits: 0.0123, 4.56, 1.20e−5."""
    if value == 0:
        return "0"
    if abs(value) < 1e-3:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{MINUS}{exponent.lstrip('-0')}".replace("-", MINUS)
    if abs(value) >= 10**digits:
        return fixed(value, 0)
    return f"{value:#.{digits}g}".rstrip(".").replace("-", MINUS)


def share(value: float) -> str:
    """A fraction as percent; never 100 when something is missing, never 0 when there is something."""
    if value in (0, 1):
        return f"{100 * value:.0f} %"
    if value < 0.0005:
        return "< 0.1 %"
    return "> 99.9 %" if value >= 0.9995 else f"{100 * value:.1f} %"


def speed(timing: dict) -> tuple[str, str]:
    """(speed-up, its interval) of an entry of a latency file."""
    ci = timing["speedup_ci"]
    return f"{timing['speedup']:.2f}", f"{ci['low']:.2f} to {ci['high']:.2f}"


def product(first: dict, second: dict) -> dict:
    """Two entries of latency files as one: the speed-up over both steps.

    The two are of different runs. The interval is the product of their ends: wider than that of a product of
    independent ratios, but drift of the machine between the runs is not in it.
    """
    ends = {end: first["speedup_ci"][end] * second["speedup_ci"][end] for end in ("low", "high")}
    return {"speedup": first["speedup"] * second["speedup"], "speedup_ci": ends}
