"""The runtime is asked whether the two models differ in the kernel alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.kernels import Family, Kernel, draw_kernels, minimal_model
from bitwright.hw_constraints.measure.files import made_up_inputs
from bitwright.hw_constraints.table.sampling import group_of

EXECUTED = {
    Family.CONV: {"Conv", "FusedConv", "QLinearConv", "Convolution"},
    Family.POINTWISE: {"Conv", "FusedConv", "QLinearConv", "Convolution"},
    Family.DEPTHWISE: {"Conv", "FusedConv", "QLinearConv", "Convolution"},
    Family.LINEAR: {"Gemm", "MatMul", "QGemm", "FusedGemm", "QLinearMatMul", "FullyConnected"},
    Family.ELEMENTWISE: {"Add", "Mul", "Sub", "QLinearAdd", "QLinearMul", "Subgraph", "Eltwise"},
    Family.POOL: {"MaxPool", "AveragePool", "NhwcMaxPool", "QLinearAveragePool", "Pooling"},
    Family.CONCAT: {"Concat", "QLinearConcat", "Concatenation"},
}
_MORE = {
    Family.GROUPED: EXECUTED[Family.CONV],
    Family.CONV_TRANSPOSE: {"ConvTranspose", "Deconvolution"},
    Family.SOFTMAX: {"Softmax"},
    Family.OTHER: {"ReduceMax", "Reduce"},
}
# What OpenVINO executes when it loads, and what turns the few glanced-at codes into real values.
_ASIDE = {"Reshape", "Transpose"}


def cases() -> list[tuple[str, Kernel]]:
    return [
        (runtime, kernel)
        for runtime in ("onnxruntime", "openvino")
        for number_format in ("float32", "int8")
        for family in EXECUTED
        for kernel in draw_kernels(family, number_format, runtime, 2, seed=1)
        if kernel.macs < 5e7
    ]


# Shapes beside the usual ones, as `group_of` calls them.
_UNUSUAL = (
    *((Family.CONV, number_format, "of few channels") for number_format in ("float32", "int8")),
    *((Family.DEPTHWISE, number_format, "long") for number_format in ("float32", "int8")),
    *((Family.GROUPED, number_format, "large") for number_format in ("float32", "int8")),
    (Family.POOL, "int8", "MaxPool in plain order"),
    (Family.CONV_TRANSPOSE, "float32", "ConvTranspose large"),
    (Family.SOFTMAX, "float32", "Softmax inside"),
    (Family.ELEMENTWISE, "float32", "Mul broadcasting between"),
    (Family.OTHER, "float32", "ReduceMax"),
)


def unusual_cases() -> list[tuple[str, Kernel]]:
    return [
        (runtime, next(kernel for kernel in draw_kernels(family, number_format, runtime, 80, seed=3)
                       if group_of(kernel)[2] == trait and kernel.macs < 2e7))
        for runtime in ("onnxruntime", "openvino")
        for family, number_format, trait in _UNUSUAL
        if runtime == "onnxruntime" or family not in (Family.POOL, Family.CONV_TRANSPOSE)  # with reorders of their own
    ]  # fmt: skip


@pytest.mark.parametrize(("runtime", "kernel"), [*cases(), *unusual_cases()], ids=str)
def test_with_and_without_differ_in_one_node_a_branch(runtime: str, kernel: Kernel) -> None:
    model = minimal_model(kernel, runtime, branches=2)
    backend = get_backend(runtime)
    more, less = (
        Counter(node.op for node in backend.load(each).executed_graph() if node.op not in _ASIDE)
        for each in (model.with_kernel, model.without_kernel)
    )
    executed = sum((more - less)[op] for op in (EXECUTED | _MORE)[kernel.family])
    difference = sum(more.values()) - sum(less.values())
    padded = [bool(shape[1] % 16) for shape in (kernel.inputs[0], kernel.outputs[0])]
    if kernel.layout == "blocked" and any(padded):
        assert difference in (0, 2, 4)  # reorders of what is glanced at come in or go
        # A glance at padded blocks is a convolution, at others a pool.
        assert executed >= 2 or (padded == [True, False] and (more - less)["MaxPool"] == 2)
    else:
        assert difference == 2 and executed >= 2
    if (runtime, kernel.op, kernel.format, kernel.layout) == ("onnxruntime", "MaxPool", "int8", "plain"):
        assert (more - less)["MaxPool"] == 2  # not the one whose channels come last


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("number_format", ["float32", "int8"])
def test_every_family_runs(runtime: str, number_format: str) -> None:
    backend = get_backend(runtime)
    for family in Family:
        for kernel in draw_kernels(family, number_format, runtime, 1, seed=2):
            model = minimal_model(kernel, runtime, branches=1)
            for each in (model.with_kernel, model.without_kernel):
                session = backend.load(each)
                assert session.run(made_up_inputs(session, str(kernel), 0))


def test_the_time_is_the_difference_shared_by_the_branches() -> None:
    kernel = draw_kernels(Family.CONV, "float32", "onnxruntime", 1)[0]
    assert minimal_model(kernel, "onnxruntime", branches=4).time_us(50.0, 10.0) == 10.0


def test_the_same_kernel_gives_the_same_files(tmp_path: Path) -> None:
    kernel = draw_kernels(Family.LINEAR, "int8", "onnxruntime", 1)[0]
    first, second = (minimal_model(kernel, "onnxruntime", seed=3) for _ in range(2))
    assert first.with_kernel == second.with_kernel
    assert first.without_kernel == second.without_kernel
