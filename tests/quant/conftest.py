"""What the tests of quant share: schemes by hand, and runtimes to compare with."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from bitwright.quant.formats import FORMATS
from bitwright.quant.scheme import BiasKind, Granularity, QParamsSpec, QuantScheme

OPERATORS = frozenset(
    [
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
        "linear",
        "addmm",
        "matmul",
        "bmm",
        "mm",
        "add",
        "mul",
        "avg_pool2d",
        "adaptive_avg_pool2d",
        "mean",
        "sigmoid",
        "hardswish",
        "silu",
        "gelu",
        "softmax",
    ]
)
SHARED = frozenset(
    [
        "max_pool1d",
        "max_pool2d",
        "view",
        "reshape",
        "flatten",
        "permute",
        "transpose",
        "cat",
        "split",
        "split_with_sizes",
        "chunk",
        "slice",
        "select",
        "unsqueeze",
        "squeeze",
        "expand",
        "upsample_nearest2d",
    ]
)
PATTERNS = (
    *((conv, act) for conv in ("conv1d", "conv2d", "conv3d", "linear") for act in ("relu", "hardtanh")),
    ("add", "relu"),
)


def make_scheme(activation: str, weight: str, **changes: Any) -> QuantScheme:
    signed = activation.startswith(("int", "float"))
    integers = not activation.startswith("float")
    settings: dict[str, Any] = {
        "name": f"{activation}/{weight}",
        "activations": QParamsSpec(format=FORMATS[activation], symmetric=signed),
        "weights": QParamsSpec(
            format=FORMATS[weight], symmetric=True, narrow_range=integers, granularity=Granularity.PER_CHANNEL
        ),
        "bias": BiasKind.INT32 if integers else BiasKind.FLOAT32,
        "quantized_operators": OPERATORS,
        "shared_qparams_operators": SHARED,
        "fused_patterns": PATTERNS,
    }
    return QuantScheme(**{**settings, **changes})


@pytest.fixture(name="make_scheme", scope="session")
def _make_scheme() -> Callable[..., QuantScheme]:
    return make_scheme


@pytest.fixture(scope="session")
def u8s8() -> QuantScheme:
    """What x86 runtimes fuse: asymmetric uint8 activations, symmetric int8 weights per channel."""
    return make_scheme("uint8", "int8")


@pytest.fixture(scope="session")
def fp8() -> QuantScheme:
    return make_scheme("float8_e4m3fn", "float8_e4m3fn")


def run_onnx(
    model: onnx.ModelProto | Path,
    inputs: Mapping[str, np.ndarray],
    outputs: list[str] | None = None,
    *,
    optimize: bool = False,
    **settings: str,
) -> list[np.ndarray]:
    """What ONNX Runtime computes; with every optimisation off unless told, so that the file is executed as written."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    for key, value in settings.items():
        options.add_session_config_entry(f"session.{key}", value)
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    # State has a default value in the file, which makes it an initializer that may be overridden.
    names = {item.name for item in [*session.get_inputs(), *session.get_overridable_initializers()]}
    result: list[np.ndarray] = session.run(outputs, {key: value for key, value in inputs.items() if key in names})
    return result


@pytest.fixture(name="run_onnx", scope="session")
def _run_onnx() -> Callable[..., list[np.ndarray]]:
    return run_onnx


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """These tensors are small: threads only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(0)
