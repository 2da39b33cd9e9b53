"""Stage `report`: the trade-off in words, tables and plots, and the model to release, from what the other stages wrote."""

if __name__ == "__main__":
    from src.common.command import command

    command("src.report", alone=True)

from src.common import layout, params
from src.common.files import write_csv, write_json, write_text
from src.publish import card
from src.reporting import decision, det, page
from src.reporting.results import load

REPORT, PAGE, DET = layout.METRICS / "report.md", layout.METRICS / "report.html", layout.table("det")


def main() -> None:
    results = load(params.load())
    curves = det.curves(results)
    shown = page.context(results, curves)
    pages = {path: page.render(template, shown) for path, template in ((REPORT, "report.md"), (PAGE, "report.html"))}
    model = decision.choice(results) or results.models["fp32"]
    release, readme = card.facts(results, model), card.card(results, model)
    write_csv(DET, det.COLUMNS, det.rows(curves))
    for path, text in (pages | {layout.CARD: readme}).items():
        write_text(path, text)
    write_json(layout.RELEASE, release)
    print(shown["verdict"])
