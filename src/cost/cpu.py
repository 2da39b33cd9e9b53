"""The processor, and the instructions that it has for products of 8-bit integers."""

import platform
from collections.abc import Iterable
from pathlib import Path

EXTENSIONS = (
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",  # x86
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",  # Arm
)


def cpu() -> dict:
    """{model, extensions}: the processor's name and which of EXTENSIONS it has, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    facts = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = facts.get("flags", facts.get("features", "")).split()
    return {
        "model": facts.get("model name") or platform.processor() or platform.machine(),
        "extensions": [extension for extension in EXTENSIONS if extension in flags],
    }


def integer_kernels(extensions: Iterable[str]) -> str:
    """The instructions with which ONNX Runtime multiplies 8-bit integers on a processor with these of EXTENSIONS, best
    first in its own order of preference (onnxruntime/core/mlas/lib/platform.cpp)."""
    names = {
        "amx_int8": "AMX",
        "avx512_vnni": "AVX512-VNNI",
        "avx_vnni": "AVX-VNNI",
        "avx2": "AVX2 without VNNI",
        "i8mm": "Arm i8mm",
        "asimddp": "Arm dot product",
        "asimd": "Arm NEON",
    }
    return next((name for extension, name in names.items() if extension in extensions), "none of its faster ones")
