"""Stage `report`: the trade-off in words, tables and plots, from what the other stages wrote."""

if __name__ == "__main__":
    from src.common.command import command

    command("src.report", alone=True)

from src.common import params
from src.common.files import write_csv, write_text
from src.reporting import det, page
from src.reporting.results import load

REPORT, PAGE, DET = "metrics/report.md", "metrics/report.html", "metrics/det.csv"


def main():
    results = load(params.load())
    curves = det.curves(results)
    shown = page.context(results, curves)
    pages = {path: page.render(template, shown) for path, template in ((REPORT, "report.md"), (PAGE, "report.html"))}
    write_csv(DET, det.COLUMNS, det.rows(curves))
    for path, text in pages.items():
        write_text(path, text)
    print(shown["verdict"])
