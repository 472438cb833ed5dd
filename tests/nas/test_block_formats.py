import pytest

from bitwright.hw_constraints.target import load_target
from bitwright.nas.block_formats import BLOCK_FORMATS, apply_block_formats
from bitwright.quant.scheme import Override


def override(target: str, name: str) -> Override | None:
    loaded = load_target(target)
    overrides = apply_block_formats(loaded.scheme(), loaded, {"blocks.0": name}).overrides
    return overrides[0] if overrides else None


@pytest.mark.parametrize("target", ["x86-vnni", "x86-avx2", "tensorrt-orin", "ethos-u85-1024"])
def test_int8_is_what_the_target_does_anyway(target: str) -> None:
    assert override(target, "int8") is None


@pytest.mark.parametrize("target", ["x86-vnni", "x86-avx2"])
def test_int16_changes_only_the_activations(target: str) -> None:
    int16 = override(target, "int16")
    assert int16 is not None
    assert int16.weights == load_target(target).scheme().weights
    assert int16.activations is not None
    assert int16.activations.format.name == "int16"


def test_fp8_is_what_an_fp8_accelerator_does_anyway() -> None:
    assert override("h200", "fp8") is None


def test_float_keeps_the_block_out() -> None:
    kept = override("x86-vnni", "float32")
    assert kept is not None
    assert kept.keep_float
    assert kept.origin == "the candidate's format float32"


def test_the_target_s_own_way_of_keeping_a_format_is_taken() -> None:
    int16 = override("ethos-u85-1024", "int16")
    assert int16 is not None
    target = load_target("ethos-u85-1024")
    assert int16.activations == target.numerics.activations[1]
    assert int16.weights == target.numerics.weights[0]


@pytest.mark.parametrize("name", BLOCK_FORMATS)
@pytest.mark.parametrize("target", ["x86-vnni", "h200"])
def test_every_format_makes_a_valid_spec_on_every_target(target: str, name: str) -> None:
    made = override(target, name)
    if made is not None and not made.keep_float:
        assert made.weights is not None
        assert made.weights.format.name in BLOCK_FORMATS[name].weights
