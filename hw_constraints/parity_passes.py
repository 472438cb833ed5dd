"""Which of ONNX Runtime's optimiser passes, or which step to a newer opset, makes a file compute something else.

The passes that change a file are read from the runtime's own log, so that no list of names grows old. With all behind
some place switched off, the first whose presence breaks a layer is found by halving; it is switched off for good, and
the search goes on for the next.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx

from bitwright.hw_constraints.parity_links import OnnxRuntimeLink
from bitwright.quant.parity.halving import Culprit, StepBisection, first_broken
from bitwright.quant.parity.link import Link, LinkError
from bitwright.quant.parity.locate import LinkParity, compare_links
from bitwright.quant.parity.results import Inputs

_LISTS = """
import sys, onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level = 0
options.intra_op_num_threads = 1
onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
"""
_CHANGED = re.compile(r"GraphTransformer (\S+) modified: 1 ")


def passes_of(path: Path) -> tuple[str, ...]:
    """ONNX Runtime's passes that change a file, in the order in which they first do.

    Raises:
        LinkError: the runtime cannot load it.
    """
    run = subprocess.run([sys.executable, "-c", _LISTS, str(path)], capture_output=True, text=True)
    if run.returncode:
        raise LinkError(f"{path}: ONNX Runtime cannot load it: {(run.stderr.strip().splitlines() or [''])[-1][:300]}")
    return tuple(dict.fromkeys(_CHANGED.findall(run.stderr)))


def bisect_passes(first: Link, path: Path, inputs: Sequence[Inputs], *, most: int = 8) -> StepBisection:
    """Finds the passes of the runtime that break a file.

    Args:
        first: what the file was made from.
        path: the file.
        inputs: what to run on; not empty.
        most: stop behind so many.

    Raises:
        LinkError: a link cannot run.
    """
    passes, culprits, count = passes_of(path), list[Culprit](), 0

    def compare(allowed: int) -> LinkParity:
        nonlocal count
        count += 1
        without = [*passes[allowed:], *(each.name for each in culprits)]
        return compare_links(first, OnnxRuntimeLink(path, "all", without=without), inputs)

    while len(culprits) < most:
        broken = first_broken(len(passes), compare)
        if broken is None or broken[0] == 0:  # without any pass it breaks as well: the file is wrong, not the runtime
            break
        place, parity = broken
        culprits.append(Culprit(name=passes[place - 1], parity=parity))
    return StepBisection(culprits=tuple(culprits), steps=len(passes), comparisons=count)


def bisect_opsets(path: Path, inputs: Sequence[Inputs], *, newest: int) -> StepBisection:
    """Finds the first newer opset in which a file, converted by ONNX's own converter, computes something else.

    Args:
        path: the file.
        inputs: what to run on; not empty.
        newest: the last opset to look at.

    Raises:
        LinkError: the file cannot run.
    """
    model, count = onnx.load(path), 0
    own = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    reference = OnnxRuntimeLink(path, "disabled", "the file as it is")
    with tempfile.TemporaryDirectory() as folder:

        def compare(steps: int) -> LinkParity:
            nonlocal count
            count += 1
            converted, name = Path(folder) / f"{own + steps}.onnx", f"opset {own + steps}"
            try:
                onnx.save(onnx.version_converter.convert_version(model, own + steps), converted)
                return compare_links(reference, OnnxRuntimeLink(converted, "disabled", name), inputs)
            except (LinkError, RuntimeError) as error:  # the converter's own exception is a RuntimeError
                return LinkParity(first=reference.name, second=name, problem=" ".join(str(error).split())[:300])

        broken = first_broken(max(0, newest - own), compare)
    culprits = () if broken is None else (Culprit(name=f"opset {own + broken[0]}", parity=broken[1]),)
    return StepBisection(culprits=culprits, steps=max(0, newest - own), comparisons=count)
