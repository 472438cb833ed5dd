"""The reference kernel: what every latency of a table is a multiple of.

A 3 x 3 convolution whose operands stay in the second-level cache: its time follows the processor's clock. What a large
tensor costs hangs on which physical pages a process is given. Chosen by measurement: 39 kernels in ONNX Runtime, five
batches of 3 to 6 processes; the median difference of a ratio from one process to another was 1.0 to 1.7 % with this
reference, 4 to 11 % with one that reads and writes 13 MB, and 1.3 to 2.4 % with an empty call. In OpenVINO (two
processes) this one and the large one did alike, 2.2 %, and the empty call 10 %. When the clock fell by a fifth, half of
the kernels followed this reference to 2 %; pools did not, by up to 14 %.
"""

from __future__ import annotations

import numpy as np

from bitwright.hw_constraints.kernels.kernel import Family, Kernel

_CHANNELS, _SIDE = 64, 28
_OPSET, _IR_VERSION = 17, 8  # old enough for every runtime that reads ONNX

REFERENCE = Kernel(
    family=Family.CONV,
    op="Conv",
    format="float32",
    inputs=((1, _CHANNELS, _SIDE, _SIDE),),
    outputs=((1, _CHANNELS, _SIDE, _SIDE),),
    weight=(_CHANNELS, _CHANNELS, 3, 3),
    epilogue=("relu",),
    attributes=(("pads", (1, 1, 1, 1)),),
)


def reference_model() -> bytes:
    """The reference kernel as a model by itself, ONNX: the same bytes everywhere."""
    from onnx import TensorProto, helper, numpy_helper

    shape, weight_shape = list(REFERENCE.inputs[0]), REFERENCE.weight
    # Values do not matter to the time as long as none is denormal; the same ones everywhere make the same file.
    weight = np.linspace(-0.1, 0.1, int(np.prod(weight_shape)), dtype=np.float32).reshape(weight_shape)
    bias = np.linspace(-1.0, 1.0, _CHANNELS, dtype=np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "weight", "bias"], ["sum"], pads=list(REFERENCE.attribute("pads"))),
        helper.make_node("Relu", ["sum"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "reference",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    opset = helper.make_opsetid("", _OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)
    return bytes(model.SerializeToString(deterministic=True))
