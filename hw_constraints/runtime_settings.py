"""How a file is opened in a runtime, here and on a device: so that it computes what the file says.

Python 3.8's standard library, like all that travels to devices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitwright.hw_constraints.onnx_contents import NARROW, contents_of

if TYPE_CHECKING:
    from pathlib import Path

    from bitwright.hw_constraints.machine import Machine

EXACT = "session.x64quantprecision"
DISABLED = "disabled_optimizers"
_ACCURACY = "session.qdq_matmulnbits_accuracy_level"
_NO_SPINNING_BETWEEN_CALLS = "session.force_spinning_stop"
_FLOAT8 = frozenset(range(17, 21))  # TensorProto.FLOAT8E4M3FN to FLOAT8E5M2FNUZ


def onnxruntime_settings(artifact: Path | str | bytes, *, threads: int, machine: Machine) -> dict[str, str]:
    """The settings of a session: options by their names, and optimizers that are left out under `DISABLED`.

    Args:
        artifact: the file, or its bytes.
        threads: for the operators.
        machine: whose processor runs it.
    """
    settings = {"graph_optimization_level": "ORT_ENABLE_ALL", "intra_op_num_threads": str(threads)}
    if threads > 1:
        # A pool spins on when a call is over, and whoever has several sessions, as any comparison has, times one
        # against the others' pools: eight networks in one process, two threads, took up to 6.7 times as long as
        # alone, and one 2.5 times as long in one process as in the next; with this 1.4 times and 1.2 times.
        settings[_NO_SPINNING_BETWEEN_CALLS] = "1"
    if machine.saturates_u8s8:
        # Without it u8 x s8 products saturate at 16 bits on this processor, silently.
        settings[EXACT] = "1"
    found = contents_of(artifact)
    left_out: list[str] = []
    if found.stored & _FLOAT8:
        # It fuses float8 Q/DQ into integer operators and then rejects the model that it made; unfused, float8
        # tensors are converted and the arithmetic is float32.
        settings["session.disable_quant_qdq"] = "1"
    if found.coded_weights:
        # It rounds the activations in front of coded weights to 8 bits unless told (level 4); level 1 is float32.
        settings[_ACCURACY] = "1"
        # Of a matrix's MatMul and Add it makes a Gemm first where a ReLU follows, which takes no codes.
        left_out.append("MatMulAddFusion")
    if found.written & (_FLOAT8 | NARROW):
        # Its rules for a clamp in front of QuantizeLinear know integers of 8 and 16 bits. Of float8 and int4 they take
        # a ReLU out although codes below zero are left (silently: a network of them gives other results), and of a
        # Clip they refuse the file.
        left_out += ["ReluQuantRewrite", "ClipQuantRewrite"]
    return {**settings, **({DISABLED: ",".join(left_out)} if left_out else {})}


def openvino_settings(artifact: Path | str | bytes, *, threads: int) -> dict[str, str]:
    """The properties of a compiled model.

    Args:
        artifact: the file, or its bytes.
        threads: of the one stream.
    """
    settings = {
        "INFERENCE_NUM_THREADS": str(threads),
        "NUM_STREAMS": "1",
        # Newer processors would run the float layers in bfloat16 unasked, and a float reference is to be one.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    if contents_of(artifact).coded_weights:
        # It rounds the activations in front of coded weights to 8 bits unless told, in groups of 32.
        settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = "0"
    return settings
