import pytest

from src.cost import cpu


@pytest.mark.parametrize(
    ("machine", "extensions", "wanted"),
    [
        ("x86_64", ["avx2"], True),
        ("x86_64", ["avx2", "avx512f"], True),
        ("AMD64", [], True),
        ("x86_64", ["avx2", "avx512f", "avx512_vnni"], False),
        ("x86_64", ["avx2", "avx_vnni"], False),
        ("aarch64", ["asimd"], False),
        ("arm64", [], False),
    ],
)
def test_which_processors_saturate(machine, extensions, wanted):
    assert cpu.saturates(extensions, machine) is wanted


def test_this_processor_is_known():
    found = cpu.cpu()
    assert found["model"] and set(found["extensions"]) <= set(cpu.EXTENSIONS)
