"""The inputs that two links are compared on: from a file, an entry, a recipe's calibration split, or drawn."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bitwright.experiments.inputs import first_rows
from bitwright.experiments.parity_sides import Side
from bitwright.experiments.recipe_data import DataSection
from bitwright.experiments.recipe_section import ENTRY
from bitwright.quant.errors import InputError
from bitwright.quant.parity.onnx_network import OnnxNetwork
from bitwright.quant.parity.results import Inputs, Origin


def inputs_for(sides: Sequence[Side], data: str | None, samples: int) -> tuple[Inputs, ...]:
    """So many inputs.

    Args:
        sides: what is compared; one of them may bring data.
        data: what `--data` said: `.npz` or `.npy`, or `package.module:function` that returns a loader.
        samples: how many.

    Raises:
        InputError: there are none, or they cannot be read.
    """
    if data is not None and data.endswith((".npy", ".npz")):
        found = [Inputs(args=each) for each in _from_file(Path(data), samples)]
    elif data is not None:
        found = [Inputs(args=each) for each in islice(_from_entry(data, sides), samples)]
    else:
        found = list(_of_the_sides(sides, samples))
    if not found:
        raise InputError("there is no input to compare on; give --data")
    return tuple(found)


def _from_file(path: Path, samples: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """`.npy`: one argument, a sample for each row; `.npz`: one array for each argument, in order."""
    try:
        with np.load(path, allow_pickle=False) if path.suffix == ".npz" else _single(path) as archive:
            arrays = [archive[name] for name in archive]
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"--data = {str(path)!r}: cannot be read ({error}); expected .npz or .npy") from error
    if path.suffix == ".npz":
        yield tuple(map(torch.from_numpy, arrays))
        return
    for row in islice(arrays[0], samples):
        yield (torch.from_numpy(np.array(row[None])),)


class _single(dict[str, Any]):
    """A `.npy` file as an archive with one array."""

    def __init__(self, path: Path) -> None:
        super().__init__(only=np.load(path, allow_pickle=False, mmap_mode="r"))

    def __enter__(self) -> _single:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _from_entry(data: str, sides: Sequence[Side]) -> Iterator[tuple[Any, ...]]:
    from bitwright.experiments.datasets import Split
    from bitwright.experiments.open_data import open_data

    if not re.match(ENTRY, data):
        raise InputError(f"--data = {data!r}; expected a .npz or .npy file, or package.module:function")
    batches = open_data(DataSection.model_validate({"entry": data})).loader(Split.CALIBRATE, 1, None)
    example = next((side.example for side in sides if side.example is not None), None)
    rows = example[0].shape[0] if example and isinstance(example[0], torch.Tensor) and example[0].dim() else 1
    for batch in batches:
        args = batch if isinstance(batch, tuple) else (batch,)
        count = len(example) if example is not None else len(args)
        yield first_rows(tuple(args[:count]), rows)


def _of_the_sides(sides: Sequence[Side], samples: int) -> Iterator[Inputs]:
    bench = next((side.bench for side in sides if side.bench is not None), None)
    if bench is not None:
        from bitwright.experiments.datasets import Split

        network = bench.new_model()
        batches = bench.arguments(network, Split.CALIBRATE, batch=bench.recipe.example_inputs.batch)
        rows = bench.recipe.example_inputs.batch
        yield from (Inputs(args=first_rows(each, rows)) for each in islice(batches, samples))
        return
    example = next((side.example for side in sides if side.example is not None), None)
    if example is not None:
        yield Inputs(args=example)
        return
    file = next((step.file for side in sides for step in side.steps if step.file is not None), None)
    if file is None:
        raise InputError("--data is missing: neither side says what the network takes")
    yield from (_drawn(OnnxNetwork(file), seed) for seed in range(samples))


def _drawn(network: OnnxNetwork, seed: int) -> Inputs:
    """Normal random numbers of the file's own shapes; zeros for whole numbers, which may be indices."""
    from bitwright.quant.export.onnx_builder import ELEMENT_TYPES

    types = {number: getattr(torch, name) for name, number in ELEMENT_TYPES.items()}
    generator = torch.Generator().manual_seed(seed)
    stored = {each.name for each in network.model.graph.initializer}
    args = []
    for item in network.model.graph.input:
        if item.name in stored:
            continue
        tensor = item.type.tensor_type
        shape = [each.dim_value for each in tensor.shape.dim]
        if 0 in shape or tensor.elem_type not in types:
            raise InputError(f"{network.path}: input {item.name!r} has an open shape; give --data")
        dtype = types[tensor.elem_type]
        drawn = torch.randn(shape, generator=generator)
        args.append(drawn.to(dtype) if dtype.is_floating_point else torch.zeros(shape, dtype=dtype))
    return Inputs(args=tuple(args), origin=Origin.RANDOM)
