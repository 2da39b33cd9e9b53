"""The report as Markdown and as a page."""
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from src.reporting import breakdown, figures, tables, words


def context(results, curves):
    """What both templates show."""
    titles = {name: model.title for name, model in results.models.items()}
    header, rows = tables.summary(results)
    sections = tables.everything(results)
    conditions, layers = breakdown.load()
    return {
        "verdict": words.verdict(results),
        "material": words.material(results),
        "summary": tables.markdown(header, rows),
        "models": list(titles.values()),
        "sections": sections,
        "figures": _flat(titles.values(), sections),
        "notes": tables.notes(results),
        "answers": words.answers(results),
        "environment": tables.environment(results),
        "pictures": [
            figures.det(curves, titles, words.GROUPS[results.groups[0]]),
            figures.histograms(results),
            figures.layers(results.layers),
            figures.trials(results.trials, results.search),
            breakdown.conditions(conditions),
            breakdown.layers(layers),
        ],
        "conditions": breakdown.conditions_table(conditions),
        "sensitivity": breakdown.layers_table(layers),
    }


def _flat(titles, sections):
    """The sections as one Markdown table, their titles as rows."""
    rows = []
    for section in sections:
        rows.append([f"**{section.title}**", *("" for _ in titles)])
        rows += [[label, *cells] for label, cells in section.rows]
    return tables.markdown(["", *titles], rows)


def render(template, shown) -> str:
    """`report.md` or `report.html` from `context`; text in the page is escaped, its figures are not."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), undefined=StrictUndefined,
        autoescape=select_autoescape(("html.j2",)), trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(f"{template}.j2").render(shown)
