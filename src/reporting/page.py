"""The report as Markdown and as a page."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from src.reporting import breakdown, environment, figures, tables, words


def context(results, curves):
    """What both templates show."""
    titles = {name: model.title for name, model in results.models.items()}
    header, rows = tables.summary(results)
    sections = tables.everything(results)
    main = results.groups[0]
    group, mark = words.named(main, results), words.mark(results.over_seen(main))
    conditions, layers = breakdown.load()
    broken_down = words.mark(results.breakdown_seen)
    return {
        "verdict": words.verdict(results),
        "qualification": words.qualification(results),
        "material": words.material(results),
        "header": header,
        "rows": rows,
        "summary": tables.markdown(header, rows),
        "footnotes": tables.footnotes(results),
        "models": titles,
        "sections": sections,
        "figures": _flat(titles.values(), sections),
        "notes": tables.notes(results),
        "footnote": tables.FOOTNOTE if results.marked else "",
        "answers": words.answers(results),
        "environment": environment.facts(results),
        "parameters": environment.parameters(results),
        "pictures": [
            figures.det(curves, titles, group, mark),
            figures.histograms(results, group, mark),
            breakdown.conditions(conditions, broken_down),
            breakdown.differences(conditions, broken_down),
            figures.layers(results.layers),
            breakdown.layers(layers),
            figures.front(results.trials, results.search, results.params.qat_search.eer_margin),
            *([figures.spectra(results.spectra)] if results.spectra else []),
        ],
        "about_conditions": breakdown.ABOUT,
        "mark": broken_down,
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
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        autoescape=select_autoescape(("html.j2",)),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(f"{template}.j2").render(shown)
