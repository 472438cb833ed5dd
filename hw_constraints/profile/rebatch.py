"""An ONNX file at another batch size: proven by its results, since a file may fix its batch in many ways."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from bitwright.hw_constraints.backends import Backend, Session
from bitwright.hw_constraints.measure.made_up import made_up_inputs
from bitwright.hw_constraints.proof.onnx_graph import LARGEST_INPUT_BYTES
from bitwright.quant.errors import InputError

_CLOSE = 1e-3  # of the largest result: other kernels for another batch may sum in another order, but no code is lost


def rebatched(model: onnx.ModelProto, batch: int, backend: Backend, name: str, *, threads: int) -> onnx.ModelProto:
    """The same network with `batch` samples in each input.

    Inputs' first dimensions and the targets of Reshapes that begin with the old batch are changed; then every sample of
    a batch has to give what it gives alone.

    Args:
        model: the file.
        batch: samples in a run.
        backend: the runtime that runs both.
        name: of the file, for messages.
        threads: of the runtime.

    Raises:
        InputError: the changed network does not run, its inputs do not fit, or its results are others.
    """
    old = _batch_of(model)
    if batch == old:
        return model
    changed = _changed(model, old, batch)
    alone = backend.load(model.SerializeToString(), threads=threads)
    _check_size(alone, batch, name)
    try:
        together = backend.load(changed.SerializeToString(), threads=threads)
        inputs = made_up_inputs(together, name, 0)
        results = together.run(inputs)
    except InputError as error:
        raise InputError(f"{name}: fixes its batch size of {old}: {str(error)[:200]}") from error
    for start in range(0, batch - old + 1, old):
        part = alone.run({key: value[start : start + old] for key, value in inputs.items()})
        for key, expected in part.items():
            found = results[key][start : start + old] if results[key].ndim else results[key]
            if found.shape != expected.shape or not _agree(found, expected):
                raise InputError(f"{name}: fixes its batch size of {old}: {key!r} is not {batch} samples side by side")
    return changed


def _check_size(session: Session, batch: int, name: str) -> None:
    """As `random_inputs` does: numbers are drawn as float64."""
    for spec in session.input_infos:
        size = np.dtype(np.float64).itemsize * batch * math.prod(dim or 1 for dim in (spec.shape or ())[1:])
        if size > LARGEST_INPUT_BYTES:
            raise InputError(
                f"{name}: batch {batch} takes {size / 2**30:,.1f} GiB to make up input {spec.name!r}, at most "
                f"{LARGEST_INPUT_BYTES // 2**30} are allowed; give a smaller one"
            )


def _agree(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> bool:
    largest = float(np.abs(expected).max(initial=0.0))
    return bool(np.abs(found - expected).max(initial=0.0) <= _CLOSE * largest)


def _batch_of(model: onnx.ModelProto) -> int:
    made = {tensor.name for tensor in model.graph.initializer}
    shapes = [item.type.tensor_type.shape.dim for item in model.graph.input if item.name not in made]
    return max(1, shapes[0][0].dim_value) if shapes and len(shapes[0]) else 1


def _changed(model: onnx.ModelProto, old: int, batch: int) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    made = {tensor.name for tensor in changed.graph.initializer}
    for item in changed.graph.input:
        dims = item.type.tensor_type.shape.dim
        if item.name not in made and len(dims) and dims[0].dim_value in (0, old):
            dims[0].dim_value = batch
    for item in changed.graph.output:
        item.type.tensor_type.ClearField("shape")  # the runtime infers it
    del changed.graph.value_info[:]
    targets = {node.input[1] for node in changed.graph.node if node.op_type == "Reshape" and len(node.input) > 1}
    for tensor in changed.graph.initializer:
        if tensor.name in targets:
            sizes = numpy_helper.to_array(tensor).copy()
            if sizes.size and sizes[0] == old:
                sizes[0] = batch
                tensor.CopyFrom(numpy_helper.from_array(sizes, tensor.name))
    return changed
