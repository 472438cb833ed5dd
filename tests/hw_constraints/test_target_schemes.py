"""The schemes that the targets yield, in full: a change of one is a change for every user of it."""

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


def test_the_schemes_are_as_recorded() -> None:
    assert "\n".join(spelled(load_target(name).scheme()) for name in list_targets()) == GOLDEN.read_text()


@pytest.mark.parametrize(
    ("name", "activations", "weights", "bias"),
    [
        ("x86-vnni", ("uint8", False, (0, 255)), ("int8", (-128, 127)), "int32"),
        ("x86-avx2", ("uint8", False, (0, 255)), ("int7", (-64, 63)), "int32"),
        ("tensorrt-orin", ("int8", True, (-128, 127)), ("int8", (-128, 127)), "float32"),
        ("ethos-u85-1024", ("int8", False, (-128, 127)), ("int8", (-127, 127)), "int32"),
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


def test_only_ethos_quantizes_the_outputs_and_keeps_matrix_products_per_tensor() -> None:
    schemes = {name: load_target(name).scheme() for name in list_targets()}
    assert [name for name, scheme in schemes.items() if scheme.quantize_outputs] == ["ethos-u85-1024"]
    assert schemes["ethos-u85-1024"].operator_weights["matmul"].granularity == "per_tensor"
