"""The same file on other processors: python -m bench.processors --models models/qat.onnx

Compares embeddings of recordings of the test split, 3 s each, with those that the evaluation's engine gives on this
machine, and the decisions on all pairs of them at the model's threshold. Other x86 processors and Arm are emulated by
qemu-user, Arm's Python comes from Debian's packages, onnxruntime-web from npm into bench/web.
"""

if __name__ == "__main__":
    from src.common.command import command

    command("bench.processors")

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from bench import webassembly
from bench.webassembly import UnavailableError, program
from src.common.schema import Section
from src.cost import cpu, latency
from src.data import manifest
from src.data.recordings import load_audio
from src.reporting.tables import markdown
from src.runtime import calibration, engine
from src.runtime.audio import SAMPLE_RATE
from src.runtime.errors import InputError, one_line
from src.runtime.scoring import normalised

BENCH = Path(__file__).parent
SECONDS = 3
NEAR = 0.005  # scores as near to the threshold may be decided otherwise
MODELS = ("fp32", "ptq", "qat")
Embed = Callable[[Path, np.ndarray], np.ndarray]


class Options(Section):
    models: list[Path] = Field([Path(f"models/{name}.onnx") for name in MODELS], description="files of this project")
    utterances: int = Field(16, ge=2, le=10_000, description="recordings, two of each speaker")


def main(models, utterances):
    waveforms = speech(utterances)
    print(f"This machine: {cpu.cpu()['model']}, integer kernels: {cpu.integer_kernels(cpu.cpu()['extensions'])}\n")
    rows = []
    for model in models:
        fitted, why = calibration.of_model(model)
        if fitted is None:
            raise InputError(f"{model}: no threshold: {why}")
        reference = native(model, waveforms)
        for title, embed in ENGINES.items():
            try:
                rows.append([str(model), title, *cells(reference, embed(model, waveforms), fitted.threshold_eer)])
            except UnavailableError as reason:
                rows.append([str(model), title, f"not run: {reason}", "", ""])
    print(markdown(["file", "run on", "cosine, mean", "lowest", "other decisions"], rows))


def speech(utterances: int) -> np.ndarray:
    """The first SECONDS, float32 [utterances, samples], of two recordings each of speakers of the test split.

    Raises InputError when the pipeline has not made as many.
    """
    samples, by_speaker = SECONDS * SAMPLE_RATE, {}
    for row in manifest.needed(manifest.read(), "test"):
        waveform = load_audio(row)[:samples]
        pair = by_speaker.setdefault(row.speaker, [])
        if len(waveform) == samples and len(pair) < 2:
            pair.append(waveform)
        if sum(len(pair) == 2 for pair in by_speaker.values()) * 2 >= utterances:
            break
    waveforms = [waveform for pair in by_speaker.values() if len(pair) == 2 for waveform in pair][:utterances]
    if len(waveforms) < utterances:
        raise InputError(
            f"{manifest.PATH}: {len(waveforms)} test recordings of {SECONDS} s, two of a speaker; {utterances} are needed"
        )
    return np.stack(waveforms)


def compare(reference: np.ndarray, embeddings: np.ndarray, threshold: float) -> tuple[np.ndarray, int]:
    """(cosine of each utterance's two embeddings, [utterances]; how many pairs of utterances are decided otherwise at
    `threshold`, of those whose score is not within NEAR of it)."""
    one, other = normalised(reference.astype(np.float64)), normalised(embeddings.astype(np.float64))
    pairs = np.triu_indices(len(one), 1)
    scores, others = (one @ one.T)[pairs], (other @ other.T)[pairs]
    differ = ((scores >= threshold) != (others >= threshold)) & (abs(scores - threshold) > NEAR)
    return (one * other).sum(1), int(differ.sum())


def cells(reference, embeddings, threshold):
    """As text; a cosine is never rounded up."""
    cosines, differ = compare(reference, embeddings, threshold)
    return [*(f"{np.floor(1e5 * value) / 1e5:.5f}" for value in (cosines.mean(), cosines.min())), str(differ)]


def native(model: Path, waveforms: np.ndarray) -> np.ndarray:
    """Embeddings float32 [utterances, dim] as the evaluation computes them."""
    session = engine.session(model)
    return np.stack([engine.embedding(session, waveform) for waveform in waveforms])


def x86(processor: str) -> Embed:
    """On another x86-64 processor, by qemu's name of it."""
    return lambda model, waveforms: _python(
        [program("qemu-x86_64"), "-cpu", processor, sys.executable], model, waveforms
    )


def aarch64(model: Path, waveforms: np.ndarray) -> np.ndarray:
    emulator, folder = program("qemu-aarch64"), BENCH / "aarch64"
    if not (folder / "site/onnxruntime").is_dir():
        program("apt-get")
        _run(["bash", BENCH / "aarch64.sh", folder], PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    command = [emulator, "-cpu", "neoverse-n1", "-L", folder / "root", folder / "root/usr/bin/python3"]
    return _python(command, model, waveforms, PYTHONPATH=str(folder / "site"))


def openvino(model: Path, waveforms: np.ndarray) -> np.ndarray:
    try:
        from bench.models import openvino_file
    except ImportError as missing:
        raise UnavailableError(f"{missing}; pip install -r requirements-bench.txt") from None
    return _one_by_one(openvino_file(model, 1), waveforms)


def web(model: Path, waveforms: np.ndarray) -> np.ndarray:
    return _one_by_one(webassembly.encoder(model), waveforms)


ENGINES: dict[str, Embed] = {
    "x86-64 with AVX2, without VNNI (qemu, Haswell)": x86("Haswell"),
    "x86-64 with SSE4.2 alone (qemu, Nehalem)": x86("Nehalem"),
    "aarch64 (qemu, Neoverse N1)": aarch64,
    "OpenVINO, this machine": openvino,
    "WebAssembly (onnxruntime-web, node)": web,
}


def _one_by_one(encoder: latency.Encoder, waveforms: np.ndarray) -> np.ndarray:
    return np.concatenate([encoder(waveform[None]) for waveform in waveforms])


def _python(command: Sequence, model: Path, waveforms: np.ndarray, **environment: str) -> np.ndarray:
    with tempfile.TemporaryDirectory() as scratch:
        given, taken = Path(scratch, "in.npy"), Path(scratch, "out.npy")
        np.save(given, waveforms)
        _run([*command, BENCH / "embed_file.py", model, given, taken], **environment)
        return np.load(taken)


def _run(command: Sequence, **environment: str) -> str:
    process = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env={**os.environ, **environment}
    )
    if process.returncode:
        raise UnavailableError(one_line(process.stderr.strip()[-300:]))
    return process.stdout
