"""The processor, and what it does with products of 8-bit integers."""

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


def saturates(extensions: Iterable[str], machine: str = platform.machine()) -> bool:
    """Whether engines may add up products of u8 and s8 in 16 bits on a processor with these of EXTENSIONS.

    x86 without VNNI has one instruction for such products, vpmaddubsw, whose sum of two of them stops at
    32,767: two weights of 127 with activations of 130 are over it. Arm's kernels widen first. Where the system
    does not tell the extensions of an x86 processor, it may.
    """
    x86 = machine.lower() in ("x86_64", "amd64", "i386", "i686")
    return x86 and not {"avx_vnni", "avx512_vnni", "amx_int8"} & set(extensions)
