"""What the templates of the report and of the model card share: their environment, and the values of prose.md.j2."""

import math
import re
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from src.common import layout
from src.reporting import decision, numbers, tables
from src.reporting.results import DIFFERENCE, Results

TEMPLATES = Path(__file__).parent / "templates"
HYPERPARAMETERS = {
    "learning_rate": "learning rate",
    "weight_decay": "weight decay",
    "batch_size": "batch size",
    "speaker_loss_weight": "weight of the speaker loss",
}


def environment(*folders: Path) -> Environment:
    """Templates of `folders`, then those of the report. Only *.html.j2 is escaped."""
    templates = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        undefined=StrictUndefined,
        autoescape=select_autoescape(("html.j2",)),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    shared = (numbers.points, numbers.share, numbers.count, numbers.significant, numbers.level, blocks, reflow)
    templates.filters |= {function.__name__: function for function in shared}
    return templates


def blocks(text: str) -> list[str | list[str]]:
    """Plain Markdown as paragraphs, each a str on one line, and lists, each a list of their items."""
    parts = []
    for block in re.split(r"\n\s*\n", str(text).strip()):
        lines = [" ".join(item.split()) for item in re.split(r"^- ", block, flags=re.MULTILINE)]
        parts.append(lines[1:] if block.startswith("- ") else lines[0])
    return parts


def reflow(text: str) -> str:
    """Plain Markdown with every paragraph and every item of a list on one line."""
    return "\n\n".join(
        block if isinstance(block, str) else "\n".join(f"- {item}" for item in block) for block in blocks(text)
    )


def values(results: Results) -> dict:
    """What the macros of prose.md.j2 use."""
    main, search = results.groups[0], results.search
    return {
        "results": results,
        "params": results.params,
        "profile": results.profile,
        "main": main,
        "group": tables.named(main, results),
        "fp32": results.models["fp32"],
        "quantised": decision.quantised(results),
        "chosen": decision.choice(results),
        "undecided": decision.undecided(results),
        "verdict_of": decision.verdict,
        "confirmed": partial(decision.confirmed, results=results),
        "judged_on_test": partial(decision.judged_on_test, results=results),
        "margins": results.params.evaluate.margins,
        "validated": results.models["fp32"].accuracy["validation"],
        "difference": numbers.difference,
        "effect": decision.effect,
        "comparisons": partial(tables.comparisons, results=results),
        "with_unit": numbers.with_unit,
        "speed": numbers.speed,
        "enrolled": int(results.test.groups[main][results.test.identification.enrol_speakers].sum()),
        "parity": f"{math.floor(1e7 * results.models['fp32'].accuracy['parity_cosine']) / 1e7:.7f}",  # never up to 1
        "shipped": results.params.encoder.source == layout.SHIPPED,
        "local": Path(results.params.encoder.source).is_dir(),
        "hyperparameters": {
            title: str(value) if isinstance(value, int) else numbers.significant(value)
            for key, title in HYPERPARAMETERS.items()
            if (value := search["chosen"].get(key)) is not None
        },
        "untrained": search["chosen"]["trial"] < 0,
        "trial": results.chosen and _trial(results.chosen),
    }


def _trial(row):
    """A row of trials.csv or frontier.csv, its numbers as numbers, with the difference of EER as text."""
    difference = dict(zip(("value", "low", "high"), (float(row[key]) for key in DIFFERENCE), strict=True))
    change, interval = numbers.difference("eer", {"difference": {"eer": difference}})
    return {
        "number": int(row["trial"]) + 1,
        **{key: float(row[key]) for key in ("gmacs", "objective")},
        "change": change,
        "interval": interval,
    }
