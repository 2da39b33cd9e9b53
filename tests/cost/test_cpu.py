import pytest

from src.cost import cpu


@pytest.mark.parametrize(
    ("extensions", "kernels"),
    [
        (["avx2", "avx512f"], "AVX2 without VNNI"),
        (["avx2", "avx512f", "avx512_vnni"], "AVX512-VNNI"),
        (["avx2", "avx_vnni"], "AVX-VNNI"),
        (["asimd", "asimddp"], "Arm dot product"),
        ([], "none of its faster ones"),
    ],
)
def test_the_integer_kernels_of_a_processor(extensions, kernels):
    assert cpu.integer_kernels(extensions) == kernels


def test_this_processor_is_known():
    found = cpu.cpu()
    assert found["model"] and set(found["extensions"]) <= set(cpu.EXTENSIONS)
