"""The report as Markdown and as a page."""

from src.reporting import breakdown, environment, figures, prose, tables
from src.reporting.det import Curve
from src.reporting.results import Results


def context(results: Results, curves: dict[str, Curve]) -> dict:
    """What both templates show; `verdict` is the outcome in a sentence."""
    titles = {name: model.title for name, model in results.models.items()}
    header, rows = tables.summary(results)
    sections = tables.everything(results)
    main = results.groups[0]
    group, mark = tables.named(main, results), tables.mark(results.over_seen(main))
    conditions, layers = breakdown.load()
    broken_down = tables.mark(results.breakdown_seen)
    values = prose.values(results)
    macros = vars(prose.environment().get_template("prose.md.j2").make_module(values))
    return {
        **values,
        "verdict": prose.reflow(macros["verdict"]()),
        "headline": tables.headline(results),
        "header": header,
        "rows": rows,
        "summary": tables.markdown(header, rows),
        "models": titles,
        "sections": sections,
        "figures": _flat(titles.values(), sections),
        "environment": environment.facts(results),
        "parameters": environment.parameters(results),
        "pictures": [
            figures.det(curves, titles, group, mark),
            figures.histograms(results, group, mark),
            breakdown.conditions(conditions, broken_down),
            breakdown.differences(conditions, broken_down),
            figures.layers(results.layers),
            breakdown.layers(layers),
            figures.front(results.frontier, results.trials, results.chosen, results.params.evaluate.margins.eer),
            *([figures.spectra(results.spectra)] if results.spectra else []),
        ],
        "about_conditions": breakdown.ABOUT,
        "mark": broken_down,
        "condition_losses": breakdown.losses(conditions),
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


def render(template: str, shown: dict) -> str:
    """`report.md` or `report.html` from `context`; text in the page is escaped, its figures are not."""
    return prose.environment().get_template(f"{template}.j2").render(shown)
