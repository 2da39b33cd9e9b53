"""The page of a release in Chromium: its scores against those of verify, and its use."""

import base64
import json
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
import soxr
from matplotlib.image import imread

from bench import webassembly
from src import demo, release, verify
from src.common.files import sha256
from src.runtime import audio
from src.runtime.calibration import Nontargets
from src.runtime.errors import AudioError, InputError
from tests import browser
from tests.publish.test_release import NO_LOSS, prepared
from tests.workspace import ROOT

READY = "document.querySelector('#status').textContent.startsWith('Ready')"
# A file of each: its ending, container, coding and sample rate; the second has two channels.
FORMS = [
    ("wav", "WAV", "PCM_16", 16_000),
    ("wav", "WAV", "PCM_16", 44_100),
    ("wav", "WAV", "FLOAT", 8_000),
    ("flac", "FLAC", "PCM_24", 48_000),
    ("mp3", "MP3", "MPEG_LAYER_III", 44_100),
    ("ogg", "OGG", "VORBIS", 32_000),
]


@pytest.fixture(scope="module")
def runtime():
    browser.program()
    try:
        return webassembly.package()
    except webassembly.UnavailableError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def site(runtime, tmp_path_factory):
    """The folder of the page, with a small model."""
    place = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        prepared(damage=NO_LOSS)
        release.main()
        demo.folder(release.FOLDER, runtime, Path("models/demo"))
    return place / "models/demo"


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    """Three recordings, of 16 kHz, that the small model tells apart."""
    place = tmp_path_factory.mktemp("voices")
    paths = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        sound = np.convolve(rng.normal(size=32_000), rng.normal(size=9), "same")
        soundfile.write(place / f"voice{seed}.wav", 0.5 * sound / np.abs(sound).max(), 16_000)
        paths.append(place / f"voice{seed}.wav")
    return paths


@pytest.fixture
def open_page(tmp_path):
    """`open_page(site, option, ...)`: a tab with the page of a folder."""
    servers, tabs = [], []

    def opened(folder, *options):
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), partial(demo._Files, directory=str(folder))))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{servers[-1].server_port}/"
        tabs.append(browser.opened(tmp_path / f"profile{len(tabs)}", url, *options))
        return tabs[-1].__enter__()

    yield opened
    for tab in tabs:
        tab.__exit__(None, None, None)
    for server in servers:
        server.shutdown()
        server.server_close()


def give(tab, slot, *paths):
    tab.choose(f"[data-slot={slot}] input[type=file]", *paths)


def verified(tab, first, second):
    """(score, decision) that the page shows for two recordings."""
    tab.evaluate("document.querySelector('#verified').replaceChildren()")
    give(tab, "first", first)
    tab.wait(f"document.querySelector('[data-slot=first] .about').textContent.startsWith('{first.name}:')")
    tab.evaluate("document.querySelector('#verified').replaceChildren()")
    give(tab, "second", second)
    tab.wait("document.querySelector('#verified dd')")
    score = float(tab.evaluate("document.querySelector('#verified dd').textContent").split()[0])
    return score, tab.evaluate("document.querySelector('#verified .decision').textContent")


def int8_model(path, recordings):
    """The encoder of this repository in INT8, its ranges of activations those of the recordings."""
    import torch

    from src.common import params
    from src.encoder import load
    from src.encoder.export import export_onnx
    from src.quantize import ptq

    config = params.load(ROOT / "params.yaml")
    front_end, plain = load.plain(config.encoder.source)
    network = ptq.prepare(plain, config.ptq.observer, ptq.weight_bits(config.quantize))
    ptq.calibrate_activations(network, (front_end(torch.from_numpy(samples)[None]) for samples in recordings))
    export_onnx(torch.nn.Sequential(front_end, ptq.convert(network)), path, config.quantize.weights)


@pytest.mark.slow
def test_scores_and_decisions_are_those_of_verify(shared, site, runtime, open_page, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    speakers = sorted(path for path in (shared / "speech").iterdir() if path.is_dir())
    recordings = [sorted(speaker.rglob("*.flac")) for speaker in speakers[: len(FORMS) + 1]]
    out = tmp_path / "release"
    demo.folder(site, runtime, out)
    int8_model(out / "model.onnx", [soundfile.read(paths[3], dtype="float32")[0] for paths in recordings])
    pairs = []
    for number, (ending, container, coding, rate) in enumerate(FORMS):
        sound = soxr.resample(soundfile.read(recordings[number][0])[0], 16_000, rate, quality="VHQ")
        path = tmp_path / f"{number}.{ending}"
        sound = np.stack([sound, 0.5 * sound], axis=1) if number == 1 else sound
        soundfile.write(path, sound.clip(-1, 1), rate, format=container, subtype=coding)
        pairs.append((path, recordings[number + number % 2][6]))  # of the same speaker, of the next one, in turns
    scores = [verify.verify([path], other, out / "model.onnx")[0]["score"] for path, other in pairs]
    about = json.loads((out / "config.json").read_text()) | {"sha256": sha256(out / "model.onnx")}
    (out / "config.json").write_text(json.dumps({**about, "threshold_eer": float(np.mean(sorted(scores)[2:4]))}))
    tab = open_page(out)
    tab.wait(READY)
    decisions = []
    for (path, other), expected in zip(pairs, scores, strict=True):
        result, _ = verify.verify([path], other, out / "model.onnx")
        score, decision = verified(tab, path, other)
        assert score == pytest.approx(expected, abs=0.005), path
        assert decision.lower() == result["decision"]
        decisions.append(decision)
    assert decisions.count("Same speaker") == 3 and not tab.messages


def test_speech_is_prepared_as_in_python(site, open_page):
    tab = open_page(site)
    rng = np.random.default_rng(0)
    noise = np.convolve(rng.normal(size=24_000), np.ones(4) / 4, "same").astype(np.float32)
    noise *= 0.5 / np.abs(noise).max()
    tone = (0.4 * np.sin(np.arange(24_000) * 0.07)).astype(np.float32)
    silent = np.zeros(24_000, np.float32)
    cases = [
        ([noise], 16_000),
        ([noise], 44_100),
        ([noise], 8_000),
        ([noise], 22_050),
        ([noise], 96_000),
        ([3 * noise, noise[::-1]], 16_000),  # above full scale; two sounds
        ([noise, -noise + 1e-3 * tone], 16_000),
        ([noise, 0.5 * noise], 48_000),
        ([0.1 * noise + 0.5], 16_000),  # an offset
        ([noise], 4_000),
        ([silent], 16_000),
        ([noise[:3_000]], 16_000),
        ([(20 * noise).clip(-1, 1)], 16_000),
        ([np.where(np.arange(24_000) == 7, np.nan, noise)], 16_000),
        ([noise[:0]], 16_000),
    ]
    for channels, rate in cases:
        samples = np.stack(channels, axis=1).astype(np.float32)
        try:
            pcm = audio.prepare(samples, rate)
            expected = (pcm / 32768, audio.channels_differ(samples, rate))
        except AudioError as error:
            expected = str(error)
        coded = [base64.b64encode(channel.astype("<f4").tobytes()).decode() for channel in channels]
        found = tab.evaluate(
            f"""import('/page/prepare.js').then(({{ prepare }}) => {{
              const floats = (text) => new Float32Array(Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0)).buffer);
              try {{
                const {{ samples, differ }} = prepare({json.dumps(coded)}.map(floats), {rate});
                return [Array.from(samples, (value) => 32768 * value), differ];
              }} catch (error) {{ return error.message; }}
            }})"""
        )
        if isinstance(expected, str):
            assert found.replace(" %", "%") == expected
            continue
        assert len(found[0]) == len(expected[0]) and found[1] == expected[1], rate
        rest = np.array(found[0]) / 32768 - expected[0]
        assert np.sqrt(np.mean(rest[200:-200] ** 2)) < (1e-6 if rate == 16_000 else 3e-3 * np.std(expected[0])), rate


def test_a_long_recording_is_cut_and_split_as_in_python(site, open_page):
    tab = open_page(site)
    most, window = audio.limits(audio.MAX_SECONDS)
    sizes = tab.evaluate(
        """import('/page/prepare.js').then(({ prepare, windows }) => [310, 150.0001, 60, 59].map((seconds) => {
          const noise = Float32Array.from({ length: 16000 * seconds }, (_, i) => 0.1 * Math.sin(i * i));
          return windows(prepare([noise], 16000).samples).map((part) => part.length);
        }))"""
    )
    for seconds, found in zip((310, 150.0001, 60, 59), sizes, strict=True):
        samples = np.empty(int(16_000 * min(seconds, most)))
        assert found == [len(part) for part in np.array_split(samples, -(-len(samples) // window))]


def test_a_session_reports_nothing_and_asks_no_other_host(site, voices, open_page):
    tab = open_page(site)
    tab.wait(READY)
    assert "Do not use this model in production" in tab.evaluate("document.querySelector('#warnings').textContent")
    shown = tab.evaluate("document.querySelector('#card').textContent")
    assert "What it is for" in shown and "Where it fails" in shown and "Recordings under 1 s" in shown
    assert verified(tab, voices[0], voices[0]) == (1.0, "Same speaker")
    tab.evaluate("document.querySelector('[value=identify]').click()")
    give(tab, "enrolment", *voices[:2])
    tab.wait("document.querySelectorAll('#enrolled li').length === 2")
    tab.evaluate("document.querySelector('#name').value = 'Ann <b>'")
    give(tab, "enrolment", voices[2])
    give(tab, "probe", voices[2])
    assert tab.wait("document.querySelector('#identified .decision')?.textContent") == "Ann <b>"
    assert tab.evaluate("document.querySelectorAll('#identified tbody tr').length") == 3
    tab.evaluate("document.querySelector('[aria-label=\"Remove Ann <b>\"]').click()")
    assert "Ann" not in tab.evaluate("document.querySelector('#identify').textContent")
    give(tab, "probe", ROOT / "README.md")
    notice = "document.querySelector('[data-slot=probe] .notice').textContent"
    assert tab.wait(notice) == "README.md: this browser cannot decode it"
    assert not tab.messages
    hosts = {urlsplit(url).netloc for url in tab.requests if not url.startswith(("data:", "blob:"))}
    assert len(hosts) == 1 and hosts.pop().startswith("127.0.0.1:") and len(tab.requests) > 10
    refused = "fetch('https://example.org').then(() => false, () => true)"
    assert tab.evaluate(refused) and any("Content Security Policy" in message for message in tab.messages)


def test_an_unknown_voice_is_unknown_by_the_threshold_of_identify(site, voices, open_page, tmp_path, runtime):
    out = tmp_path / "strict"
    demo.folder(site, runtime, out)
    about = json.loads((out / "config.json").read_text())
    tail = {"location": 0.9999, "scale": 1e-5, "trials": 1000, "enrolments": 1}
    (out / "config.json").write_text(json.dumps({**about, "nontargets": tail}))
    tab = open_page(out)
    tab.wait(READY)
    tab.evaluate("document.querySelector('[value=identify]').click()")
    give(tab, "enrolment", *voices[:2])
    tab.wait("document.querySelectorAll('#enrolled li').length === 2")
    give(tab, "probe", voices[2])
    assert tab.wait("document.querySelector('#identified .decision')?.textContent") == "Unknown"
    limit = Nontargets(**tail).threshold(0.01, 2)
    assert f"{limit:.4f} or more" in tab.evaluate("document.querySelector('#identified .hint').textContent")
    give(tab, "probe", voices[1])
    tab.wait("document.querySelector('#identified .decision')?.textContent === 'voice1'")


def test_it_is_used_by_keyboard(site, open_page):
    """Tab reaches everything in the order of the page; each has a name and shows that it has the focus."""
    tab = open_page(site)
    tab.wait(READY)
    names = []
    for _ in range(9):
        tab.press("Tab", 9)
        name, outline = tab.evaluate(
            """(() => { const it = document.activeElement, shown = it.type === "file" ? it.parentElement : it;
            return [it.ariaLabel || it.labels?.[0]?.textContent || it.textContent, getComputedStyle(shown).outlineStyle]; })()"""
        )
        assert outline != "none", name
        names.append(name.strip())
    assert names[:5] == [
        "Compare two recordings",
        "Choose a file: First recording",
        "Record: First recording",
        "Choose a file: Second recording",
        "Record: Second recording",
    ]
    assert "Model card" in names[5:]
    tab.evaluate("document.querySelector('[value=verify]').focus()")
    tab.press("ArrowDown", 40)
    tab.wait("!document.querySelector('#identify').hidden && document.querySelector('#verify').hidden")
    tab.press("Tab", 9)
    assert tab.evaluate("document.activeElement.id") == "name"


def test_the_microphone_is_recorded(site, voices, open_page):
    options = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    tab = open_page(site, *options, f"--use-file-for-fake-audio-capture={voices[0]}")
    tab.wait(READY)
    button = "document.querySelector('[data-slot=first] .record')"
    tab.evaluate(f"{button}.focus()")
    tab.press("Enter", 13, "\r")
    tab.wait(f"{button}.textContent === 'Stop (1 s)'")
    assert tab.evaluate(f"{button}.ariaPressed") == "true"
    tab.press("Enter", 13, "\r")
    about = tab.wait("document.querySelector('[data-slot=first] .about').textContent")
    assert about.startswith("recording: ") and float(about.split()[1]) >= 1
    assert tab.evaluate(f"{button}.textContent") == "Record" and not tab.messages
    tab.wait("document.querySelector('[data-slot=first] audio').duration > 0.9")


def test_it_fits_a_phone_and_is_light_or_dark(site, voices, open_page, tmp_path):
    tab = open_page(site)
    tab.wait(READY)
    verified(tab, *voices[:2])
    brightness = {}
    for width in (320, 400, 1100):
        for dark in (False, True):
            tab.shape(width, 800, dark)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            tab.screenshot(tmp_path / "page.png")
            brightness[dark] = imread(tmp_path / "page.png")[..., :3].mean()
            assert brightness[dark] < 0.3 if dark else brightness[dark] > 0.8


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "runtime/ort.wasm.min.mjs").unlink(), "the folder runtime is missing"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"other"), "model"),
        (lambda folder: (folder / "config.json").unlink(), "config.json cannot be read: 404"),
    ],
)
def test_what_is_missing_is_said(site, runtime, open_page, tmp_path, spoil, message):
    demo.folder(site, runtime, tmp_path / "spoilt")
    spoil(tmp_path / "spoilt")
    tab = open_page(tmp_path / "spoilt")
    assert message in tab.wait("document.querySelector('#status.wrong')?.textContent")
    assert tab.evaluate("document.querySelector('.record').disabled")


def test_the_command_serves_the_release_to_this_machine_until_it_is_interrupted(site, runtime, tmp_path):
    command = [sys.executable, "-m", "src.demo", "--release", site, "--runtime", runtime, "--port", "0"]
    # What a shell starts in the background ignores the interrupt, and so do the tests then.
    process = subprocess.Popen(
        [*command, "--out", tmp_path / "out"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    url = process.stdout.readline().split()[0]
    types = {}
    for name in ("", "page/page.js", "runtime/ort.wasm.min.mjs", "runtime/ort-wasm-simd-threaded.wasm"):
        with urllib.request.urlopen(url + name) as answer:
            types[name] = answer.headers.get_content_type()
    assert [*types.values()] == ["text/html", "text/javascript", "text/javascript", "application/wasm"]
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert json.loads((tmp_path / "out/runtime/package.json").read_text())["license"] == "MIT"


def test_what_is_not_there_or_in_use_is_said(site, runtime, tmp_path):
    with pytest.raises(InputError, match=r"no index.html in it; run the stage release"):
        demo.folder(tmp_path, runtime, tmp_path / "out")
    with pytest.raises(InputError, match=r"no such file; make demo fetches it"):
        demo.folder(site, tmp_path, tmp_path / "out")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match="--port: .* cannot be used"):
        demo.main(site, runtime, tmp_path / "out", taken.getsockname()[1])
