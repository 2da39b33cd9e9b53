"""Stage `report`: the trade-off in words, tables and plots, from what the other stages wrote."""
from src import params
from src.errors import reported
from src.files import write_csv, write_text
from src.reporting import det, page
from src.reporting.results import load

REPORT, PAGE, DET = "metrics/report.md", "metrics/report.html", "metrics/det.csv"


def main():
    results = load(params.load())
    curves = det.curves(results)
    shown = page.context(results, curves)
    write_csv(DET, det.COLUMNS, det.rows(curves))
    write_text(REPORT, page.render("report.md", shown))
    write_text(PAGE, page.render("report.html", shown))
    print(shown["verdict"])


if __name__ == "__main__":
    with reported():
        main()
