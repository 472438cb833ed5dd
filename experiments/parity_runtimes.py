"""What files run in during `bitwright parity`: runtimes here, and those of other Pythons."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bitwright.experiments.run_folder import RESOLVED
from bitwright.hw_constraints.parity_elsewhere import EXECUTORCH, ONNXRUNTIME, Elsewhere, Runtime
from bitwright.quant.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Runtimes:
    """What files run in.

    Attributes:
        levels: ONNX Runtime's optimisation levels.
        reference: whether they run in `onnx.reference`, too.
        openvino: whether they run in OpenVINO, too.
        tensorrt: whether they run in TensorRT, too.
        others: other Pythons whose ONNX Runtime runs them, too.
        executorch: Pythons whose ExecuTorch runs `.pte` programs.
    """

    levels: Sequence[str]
    reference: bool = False
    openvino: bool = False
    tensorrt: bool = False
    others: Sequence[Elsewhere] = ()
    executorch: Sequence[Elsewhere] = ()


def with_other_pythons(
    runtimes: Runtimes, places: Sequence[str], sides: Sequence[str], open_processes: contextlib.ExitStack
) -> Runtimes:
    """The same with the runtimes of other Pythons that the sides can use; this one's own ExecuTorch comes first.

    Args:
        runtimes: here.
        places: what `--runtime` named.
        sides: what is compared.
        open_processes: ends the processes.

    Raises:
        InputError: a place has none of the runtimes that the sides can use, or nothing runs a `.pte` program.
    """
    useful = [runtime for runtime, uses in _USED_BY if any(uses(side) for side in sides)]
    found: dict[Runtime, list[Elsewhere]] = {EXECUTORCH: [], ONNXRUNTIME: []}
    if EXECUTORCH in useful and (own := Elsewhere.here(EXECUTORCH)) is not None:
        found[EXECUTORCH].append(open_processes.enter_context(contextlib.closing(own)))
    for place in places:
        if not useful:
            raise InputError(f"--runtime {place}: neither side is a file that it could run (.onnx, .pte) or a run")
        for runtime, opened in zip(useful, _opened(place, useful), strict=True):
            if opened is not None:
                found[runtime].append(open_processes.enter_context(contextlib.closing(opened)))
    if EXECUTORCH in useful and not found[EXECUTORCH]:
        program = next(side for side in sides if _is_program(side))
        raise InputError(
            f"{program}: needs ExecuTorch: pip install 'bitwright[executorch]', or --runtime PYTHON that has it"
        )
    return replace(runtimes, others=found[ONNXRUNTIME], executorch=found[EXECUTORCH])


def _opened(place: str, runtimes: Sequence[Runtime]) -> list[Elsewhere | None]:
    """A process of each runtime; None for those that the place lacks, which must not be all."""
    found, problems = list[Elsewhere | None](), list[InputError]()
    for runtime in runtimes:
        try:
            found.append(Elsewhere(place, runtime))
        except InputError as error:
            found.append(None)
            problems.append(error)
    if len(problems) == len(runtimes):
        raise problems[0]
    return found


def _is_program(side: str) -> bool:
    return side.endswith(".pte")


def _is_onnx(side: str) -> bool:
    return side.endswith(".onnx") or (Path(side) / RESOLVED).is_file()


_USED_BY = ((EXECUTORCH, _is_program), (ONNXRUNTIME, _is_onnx))
