"""The stage, from the other stages' files to the report."""

import csv
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from src import report
from src.common import layout
from src.data import manifest
from src.evaluate import metrics
from src.runtime.errors import InputError
from tests.reporting.conftest import ROOT, UTTERANCES, write
from tests.workspace import programs, recomputed

OUTPUTS = (report.REPORT, report.PAGE, report.DET, layout.CARD, layout.RELEASE)


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """`reported(seen_speakers)`: a folder in which the stage ran, for all tests that only read it."""

    @functools.cache
    def made(seen_speakers):
        folder = tmp_path_factory.mktemp("reported")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            write(seen_speakers=seen_speakers)
            report.main()
        return folder

    return made


@pytest.fixture
def visit(reported, monkeypatch):
    """`visit(seen_speakers)` makes it the working directory."""
    return lambda seen_speakers=0: monkeypatch.chdir(reported(seen_speakers))


def _digests():
    return [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in OUTPUTS]


def _first_table(text):
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    stop = next(i for i in range(start, len(lines)) if not lines[i].startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:stop]]


def test_summary_comes_first_and_fits_a_terminal(visit):
    visit()
    text = Path(report.REPORT).read_text(encoding="utf-8")
    header, _, *rows = _first_table(text)
    assert header[0] == "model" and [row[0] for row in rows] == ["fp32", "INT8 PTQ", "INT8 QAT", "log-mel ¹"]
    assert {len(row) for row in rows} == {len(header)}
    assert len(next(line for line in text.splitlines() if line.startswith("|"))) <= 120


def test_figures_are_those_of_the_scores(visit):
    visit()
    header, _, *rows = _first_table(Path(report.REPORT).read_text(encoding="utf-8"))
    for name, row in zip(("fp32", "ptq", "qat", "logmel"), rows, strict=True):
        with open(f"metrics/scores/{name}.csv", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        scores = np.array([float(line["score"]) for line in lines])
        targets = np.array([line["target"] == "1" for line in lines])
        rates = [((scores[targets] < t).mean(), (scores[~targets] >= t).mean()) for t in np.unique(scores)]
        miss, false_alarm = min(rates, key=lambda pair: abs(pair[0] - pair[1]))
        low, high = sorted((100 * miss, 100 * false_alarm))
        assert low - 0.01 <= float(row[header.index("EER, %")]) <= high + 0.01


def test_same_bytes_again_in_another_process(visit):
    visit(6)
    before = _digests()
    subprocess.run(
        [sys.executable, "-m", "src.report"],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "3"},
    )
    assert _digests() == before


def test_page_needs_nothing_from_outside(visit):
    visit()
    page = Path(report.PAGE).read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    outside = set(re.findall(r"https?://[^\s\"'<]+", page))
    assert outside <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"<script|<img|<link rel=\"stylesheet|@import", page)
    assert "{{" not in page and "{%" not in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', page)) <= set(ids)


def test_page_shows_the_verdict_then_four_figures_each_with_its_interval_or_count(visit):
    visit()
    page = Path(report.PAGE).read_text(encoding="utf-8")
    order = [page.index(part) for part in ('class="verdict"', 'class="headline"', 'class="summary"', "<h2>Plots")]
    assert order == sorted(order)
    figures = re.findall(r'<li class="panel"><strong>([^<]+).*?<small>(.*?)</small>', page, re.DOTALL)
    assert len(figures) == 4
    for value, note in figures:
        numbers = [float(number.replace("−", "-")) for number in re.findall(r"[−+]?\d+\.\d+", note)]
        if "CI" in note:
            assert len(numbers) == 2 and numbers[0] <= float(value.replace("−", "-")) <= numbers[1]
        else:
            assert numbers
    text = Path(report.REPORT).read_text(encoding="utf-8")
    assert all(f"**{value} " in text for value, _ in figures)
    assert [f"## {number}." in text for number in range(1, 7)] == [True] * 5 + [False]
    assert len(re.findall(r"<h3>\d\. ", page)) == 5


def test_names_from_params_are_escaped(place):
    write(encoder={"source": "someone/<b>x&y</b>", "revision": "abc"})
    report.main()
    page = Path(report.PAGE).read_text(encoding="utf-8")
    assert "someone/&lt;b&gt;x&amp;y&lt;/b&gt;, revision abc" in page and "<b>" not in page


def test_seen_speakers_have_marked_rows_of_their_own(visit):
    visit(6)
    text = Path(report.REPORT).read_text(encoding="utf-8")
    rows = _first_table(text)[2:]
    models, groups = ("fp32", "ptq", "qat", "log-mel ¹"), ("unseen", "all †", "seen †")
    assert [row[0] for row in rows] == [f"{model}, {group}" for group in groups for model in models]
    assert "\n† Speakers that the encoder was trained on" in text
    assert "- Test: 10 speakers," in text  # the verdict is about those that are unseen


def test_a_sample_of_the_trials_is_named(place):
    write(evaluate={"max_trials": 1000})
    report.main()
    text = Path(report.REPORT).read_text(encoding="utf-8")
    assert "a seeded sample of the 1,280 pairs of an enrolment and a test utterance, with 1,000 trials in all" in text
    assert "1,000 trials, 80 target trials" in text


def test_breakdown_by_sex_is_shown_and_explained_where_there_is_one(place, reported):
    assert "sex" not in (reported(0) / report.REPORT).read_text(encoding="utf-8")
    write(sexes=True, data={"source": "hub"}, evaluate={"protocol": "superb-si"}, parts=("train", "test"))
    report.main()
    for path in (report.REPORT, report.PAGE):
        text = Path(path).read_text(encoding="utf-8")
        assert "same-sex trials are the harder ones" in text, path
        assert "enrolled from its train split and probed with its test split" in text, path
    assert "| sexes: same " in Path(report.REPORT).read_text(encoding="utf-8")


@pytest.mark.parametrize("seen, marked", [(0, []), (6, []), (16, ["det", "scores", "conditions", "differences"])])
def test_plots_over_seen_speakers_are_marked(visit, seen, marked):
    visit(seen)
    page = Path(report.PAGE).read_text(encoding="utf-8")
    figures = dict(re.findall(r'id="figure-(\w+)">\s*<h3>(.*?)</h3>', page))
    assert len(figures) == 8 and [name for name, title in figures.items() if "†" in title] == marked
    assert page.count("† Speakers that the encoder was trained on") == 3 * bool(seen)  # below summary, plots, table
    assert ("†" in page) == bool(seen)
    heading = next(
        line
        for line in Path(report.REPORT).read_text(encoding="utf-8").splitlines()
        if line.startswith("## Where quantisation hurts")
    )
    assert heading.endswith(" †") == bool(marked)


def test_actual_costs_by_the_program_in_the_documentation(visit):
    visit()
    found = recomputed(programs("docs/evaluation.md")[3], Path())
    for name, file in (("fp32", "baseline"), ("ptq", "ptq"), ("qat", "qat_search")):
        stated = json.loads(Path(f"metrics/details/{file}.json").read_text(encoding="utf-8"))
        assert found[name][:2] == pytest.approx([stated["act_dcf_0.01"], stated["act_dcf_0.05"]], abs=1e-6)
        with open(f"metrics/scores/{name}.csv", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        measured = metrics.detection([float(line["score"]) for line in lines], [int(line["target"]) for line in lines])
        assert found[name][2:] == pytest.approx([measured[metrics.fnmr_key(fmr)] for fmr in metrics.FMRS], abs=1e-9)


def test_all_figures_have_what_identification_needs_and_what_is_refused(visit):
    visit()
    text = Path(report.REPORT).read_text(encoding="utf-8")
    labels = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    minimum, actual = labels.index("minDCF 0.01"), labels.index("actual DCF 0.01")
    assert actual == minimum - 1
    for label in (
        "FNMR at FMR 1 %, % (none: 1,200 non-target trials; 3,000 are needed)",
        "FNIR at FPIR 1 %, gallery of 15, % (none: 80 probes; 300 are needed for an FPIR of 0.01)",
        "top-1, gallery of 15, %",
        "within rank 5 (CMC), %",
    ):
        assert label in labels, label
    assert "resamples of the speakers alone, since the data name no sessions" in " ".join(text.split())


@pytest.mark.parametrize("group", ["seen", "unseen"])
def test_figures_of_a_group_by_the_program_in_the_documentation(visit, group):
    visit(6)
    lines = programs("docs/evaluation.md")[0].splitlines()
    lines[5:5] = programs("docs/evaluation.md")[1].splitlines()
    found = recomputed("\n".join(lines).replace('"unseen"', f'"{group}"').replace('"all"', f'"{group}"'), Path())
    for name, file in (("fp32", "baseline"), ("ptq", "ptq"), ("qat", "qat_search")):
        stated = json.loads(Path(f"metrics/details/{file}.json").read_text(encoding="utf-8"))[group]
        keys = ("trials", "target_trials", "top1_accuracy", "eer", "min_dcf_0.01", "min_dcf_0.05")
        assert found[name] == pytest.approx([stated[key] for key in keys], abs=1e-6)


def test_commit_and_parameters_are_shown(place, reported):
    write(qat_search={"steps": 1234})
    Path("requirements.txt").write_text("a")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "requirements.txt"], ["commit", "-qm", "a"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout[:12]
    report.main()
    for path in (report.REPORT, report.PAGE):
        text = Path(path).read_text(encoding="utf-8")
        assert "steps: 1234" in text and "pretrain:" not in text
        assert "unknown: not a Git repository" in (reported(0) / path).read_text(encoding="utf-8")
    assert f"\n- commit: {head}\n" in Path(report.REPORT).read_text(encoding="utf-8")
    Path("requirements.txt").write_text("b")
    report.main()
    assert f"\n- commit: {head}, with changes not committed\n" in Path(report.REPORT).read_text(encoding="utf-8")


def test_only_seen_speakers_are_marked_too(place):
    write(seen_speakers=16, data={"source": "hub"})
    report.main()
    text = Path(report.REPORT).read_text(encoding="utf-8")
    assert [row[0] for row in _first_table(text)[2:]] == ["fp32 †", "INT8 PTQ †", "INT8 QAT †", "log-mel ¹ †"]
    assert "16 speakers that the encoder was trained on" in text and "espeak-ng" not in text


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("details/baseline.json", None, "details/baseline.json"),
        ("breakdown.csv", None, "breakdown.csv"),
        ("scores/qat.csv", None, "scores/qat.csv"),
        ("details/ptq.json", "{", "ptq.json: not valid JSON"),
        ("frontier.csv", "trial,objective\n", "frontier.csv: no rows"),
    ],
)
def test_missing_or_damaged_file_is_named_and_nothing_is_written(place, name, content, message):
    write()
    path = Path("metrics", name)
    path.unlink() if content is None else path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        report.main()
    assert not any(Path(path).exists() for path in OUTPUTS)


def test_speakers_shared_with_fine_tuning_are_refused_or_named(place):
    config = write()
    rows = manifest.read()
    manifest.write([*rows, *(replace(row, split="finetune") for row in rows[: UTTERANCES + 1])])
    with pytest.raises(InputError, match="2 test speakers are in calibration or finetune too .s00."):
        report.main()
    assert not any(Path(path).exists() for path in OUTPUTS)
    text = Path("params.yaml").read_text()
    assert config.evaluate.allow_shared_speakers is False
    Path("params.yaml").write_text(text.replace("allow_shared_speakers: false", "allow_shared_speakers: true"))
    report.main()
    for path in (report.REPORT, report.PAGE):
        assert "Warning: 2 test speakers are in the splits for fine-tuning too" in Path(path).read_text(
            encoding="utf-8"
        )


def test_files_from_before_speakers_were_seen_are_refused(place):
    write()
    rows = [replace(row, seen=int(row.speaker < "s06")) for row in manifest.read()]
    manifest.write(rows)
    with pytest.raises(InputError, match="no figures over (seen|unseen) speakers"):
        report.main()


@pytest.fixture
def browse(tmp_path):
    """`browse(option, ..., page)`: headless Chromium."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium here to open the report in")
    options = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking"
    options += " --disable-component-update --disable-extensions --disable-sync --no-first-run --hide-scrollbars"
    options += f" --enable-logging=stderr --v=0 --user-data-dir={tmp_path / 'profile'}"

    def run(*arguments):
        page = Path(arguments[-1]).resolve().as_uri()
        command = [program, *options.split(), *arguments[:-1], page]
        return subprocess.run(command, capture_output=True, text=True, timeout=150, check=True)

    return run


def test_opens_in_a_browser_light_and_dark_without_console_errors(visit, tmp_path, browse):
    visit()
    brightness = []
    for scheme in (1, 0):  # light, dark
        shot = tmp_path / f"{scheme}.png"
        theme = f"--blink-settings=preferredColorScheme={scheme}"
        output = browse("--window-size=800,1000", theme, f"--screenshot={shot}", report.PAGE)
        assert "CONSOLE" not in output.stderr
        pixels = imread(shot)[..., :3]
        brightness.append(pixels.mean())
        # The figures follow the theme, and are not blank in either.
        assert len(np.unique((255 * pixels[::4, ::4]).astype(int).reshape(-1, 3), axis=0)) > 20
    light, dark = brightness
    assert light > 0.8 > 0.3 > dark


def test_nothing_is_cut_off_at_the_width_of_a_phone(reported, tmp_path, browse):
    """No element reaches beyond the page, but for those in a box that scrolls; pictures side by side are equally high."""
    phone = tmp_path / "phone.html"
    phone.write_text(
        f"""<iframe src="{(reported(6) / report.PAGE).as_uri()}" style="border: 0; width: 400px; height: 800px"></iframe><script>
        const frame = document.querySelector("iframe");
        frame.onload = () => {{
          const page = frame.contentDocument, outer = page.documentElement.scrollWidth;
          const right = (element) => element.getBoundingClientRect().right;
          const wide = [...page.querySelectorAll("body *:not(.scroll *, svg *)")].filter((element) => right(element) > 400
            || (!element.matches(".scroll") && element.scrollWidth > element.clientWidth + 1 && element.clientWidth));
          const cut = [...page.querySelectorAll("svg text")].filter((text) => right(text) > right(text.ownerSVGElement));
          const heights = [...page.querySelectorAll("figure > svg")].map((svg) => svg.clientHeight);
          const uneven = heights.filter((height, place) => place % 2 && height != heights[place - 1]);
          document.title = [outer, wide.length, cut.length, uneven.length].join(" ");
        }};
        </script>""",
        encoding="utf-8",
    )
    output = browse("--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom", phone)
    measured = re.search(r"<title>(.*?)</title>", output.stdout)[1]
    assert measured == "400 0 0 0"  # width, elements cut off, letters cut off, pairs of pictures of different heights
