"""A file in onnxruntime-web, as a browser runs it: a Node process that gives embeddings of what it is sent."""

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np

from src.cost import latency

FOLDER = Path(__file__).parent / "web"


class UnavailableError(Exception):
    """Why an engine cannot be run here."""


def program(name: str) -> str:
    """The path of a program. Raises UnavailableError when it is not installed."""
    path = shutil.which(name)
    if path is None:
        raise UnavailableError(f"{name} is not installed")
    return path


def package() -> Path:
    """The folder of onnxruntime-web; the first use gets it from npm. Raises UnavailableError where it is not to be had."""
    if not (FOLDER / "node_modules").is_dir():
        install = [program("npm"), "ci", "--no-audit", "--no-fund"]
        output = subprocess.run(install, cwd=FOLDER, capture_output=True, text=True)
        if output.returncode:
            raise UnavailableError(f"npm ci: {output.stderr.strip()[-300:]}")
    return FOLDER / "node_modules/onnxruntime-web"


def encoder(model: Path) -> latency.Encoder:
    """The callable on one thread, waveform float32 [batch, samples] -> embedding float32 [batch, dim]. Raises
    UnavailableError where `package`, or Node, is not to be had."""
    node = program("node")
    package()
    command = [node, FOLDER / "embed.mjs", model]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdin and process.stdout  # pipes

    def embed(values: np.ndarray) -> np.ndarray:
        process.stdin.write(struct.pack("<2I", *values.shape) + values.astype("<f4").tobytes())
        process.stdin.flush()
        (dim,) = struct.unpack("<I", _exactly(4))
        return np.frombuffer(_exactly(4 * len(values) * dim), "<f4").reshape(len(values), dim)

    def _exactly(size):
        content = process.stdout.read(size)
        if len(content) < size:
            raise UnavailableError(f"node ended, status {process.wait()}")
        return content

    return embed
