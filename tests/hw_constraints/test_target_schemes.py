"""The schemes that the targets yield, in full: a change of one is a change for every user of it.

After a deliberate change: `python tests/hw_constraints/test_target_schemes.py` writes them anew.
"""

from pathlib import Path

import pytest

from bitwright.hw_constraints.target import list_targets, load_target
from bitwright.quant.formats import IntFormat
from bitwright.quant.scheme import QParamsSpec, QuantScheme

GOLDEN = Path(__file__).parent / "golden_schemes.txt"


def spelled(scheme: QuantScheme) -> str:
    lines = [
        f"[{scheme.name}]",
        f"activations: {_spec(scheme.activations)}",
        f"weights: {_spec(scheme.weights)}",
        *(f"weights of {op}: {_spec(spec)}" for op, spec in sorted(scheme.operator_weights.items())),
        f"bias: {scheme.bias}",
        f"outputs quantized: {scheme.quantize_outputs}",
        f"quantized: {' '.join(sorted(scheme.quantized_operators))}",
        f"codes only: {' '.join(sorted(scheme.codes_only_operators)) or 'none'}",
        f"shared qparams: {' '.join(sorted(scheme.shared_qparams_operators))}",
        *(f"fused: {' -> '.join(chain)}" for chain in scheme.fused_patterns),
    ]
    return "\n".join(lines) + "\n"


def _spec(spec: QParamsSpec) -> str:
    codes = f" codes {spec.code_range}" if isinstance(spec.format, IntFormat) else ""
    symmetry = "symmetric" if spec.symmetric else "asymmetric"
    return f"{spec.format.name} {symmetry} {spec.granularity} {spec.scale_kind} scale by {spec.observer}{codes}"


def all_schemes() -> str:
    return "\n".join(spelled(load_target(name).scheme()) for name in list_targets())


def test_the_schemes_are_as_recorded() -> None:
    assert all_schemes() == GOLDEN.read_text()


@pytest.mark.parametrize(
    ("name", "activations", "weights", "bias"),
    [
        ("x86-vnni", ("uint8", False, (0, 255)), ("int8", (-128, 127)), "int32"),
        ("x86-avx2", ("uint8", False, (0, 255)), ("int7", (-64, 63)), "int32"),
        ("tensorrt-orin", ("int8", True, (-128, 127)), ("int8", (-128, 127)), "float32"),
        ("ethos-u85-1024", ("int8", False, (-128, 127)), ("int8", (-127, 127)), "int32"),
        ("arm-xnnpack", ("int8", False, (-128, 127)), ("int8", (-127, 127)), "int32"),
        ("edge-tpu", ("int8", False, (-128, 127)), ("int8", (-127, 127)), "int32"),
        ("orin-dla", ("int8", True, (-128, 127)), ("int8", (-128, 127)), "float32"),
        ("hexagon-htp", ("uint8", False, (0, 255)), ("int8", (-128, 127)), "int32"),
    ],
)
def test_integer_schemes(
    name: str, activations: tuple[str, bool, tuple[int, int]], weights: tuple[str, tuple[int, int]], bias: str
) -> None:
    scheme = load_target(name).scheme()
    assert (scheme.activations.format.name, scheme.activations.symmetric, scheme.activations.code_range) == activations
    assert (scheme.weights.format.name, scheme.weights.code_range) == weights and scheme.weights.symmetric
    assert scheme.bias == bias


def test_seven_bits_never_saturate_sixteen() -> None:
    scheme = load_target("x86-avx2").scheme()
    largest_code = max(abs(code) for code in scheme.weights.code_range)
    assert 2 * scheme.activations.code_range[1] * largest_code <= 2**15 - 1
    assert 2 * scheme.activations.code_range[1] * (largest_code + 1) > 2**15 - 1


def test_fp8_scheme() -> None:
    scheme = load_target("h200").scheme()
    assert scheme.activations.format.name == scheme.weights.format.name == "float8_e4m3fn"
    assert scheme.bias == "float32" and "add" not in scheme.quantized_operators


def test_targets_without_floating_point_quantize_the_outputs_and_no_others() -> None:
    for name in list_targets():
        target = load_target(name)
        assert target.scheme().quantize_outputs == (not target.numerics.float_formats or name == "hexagon-htp")


def test_matrix_products_per_tensor_where_the_hardware_says_so() -> None:
    schemes = {name: load_target(name).scheme() for name in list_targets()}
    for name in ("ethos-u55-128", "ethos-u65-512", "ethos-u85-1024"):
        assert schemes[name].operator_weights["matmul"].granularity == "per_tensor"
        assert schemes[name].weights.granularity == "per_channel"
    assert schemes["edge-tpu"].operator_weights["linear"].granularity == "per_tensor"


@pytest.mark.parametrize("name", ["orin-dla", "amd-dpu", "ti-tda4", "tesla-fsd-hw3"])
def test_one_scale_a_tensor_and_no_zero_points(name: str) -> None:
    scheme = load_target(name).scheme()
    assert scheme.weights.granularity == "per_tensor" and scheme.activations.symmetric and scheme.weights.symmetric


def test_hardware_that_shifts_has_power_of_two_scales() -> None:
    kinds = {name: load_target(name).scheme() for name in list_targets()}
    assert {name for name, scheme in kinds.items() if scheme.activations.scale_kind == "power_of_two"} == {
        "amd-dpu",
        "ti-tda4",
    }
    assert kinds["amd-dpu"].weights.scale_kind == "power_of_two"


def test_sixteen_bit_activations_can_be_asked_for() -> None:
    assert load_target("hexagon-htp").scheme(activations="uint16").activations.code_range == (0, 65535)
    assert load_target("ti-tda4").scheme(activations="int16").activations.format.name == "int16"
    assert load_target("ethos-u55-128").scheme(activations="int16").activations.symmetric


if __name__ == "__main__":
    GOLDEN.write_text(all_schemes())
