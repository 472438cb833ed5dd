"""From a PyTorch network to a `CapturedModel`, or to the line that stands in the way.

`torch.export` gives a functional ATen graph; here each node gets its identity and the user's own source line, buffers
that `forward` mutates become explicit state, and steps without effect (dropout in eval mode, copies) fall away.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.fx
from torch.export.graph_signature import InputKind, OutputKind

from bitwright.quant.attribute_caches import enter_eval, fill, keeps_only_caches
from bitwright.quant.canonicalize import canonicalize
from bitwright.quant.capture_failure import LIBRARY, CaptureError, CaptureFailure, failure_of, lost_state
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.control_flow import Hazard, located
from bitwright.quant.dataclasses_of_tensors import dataclasses_known
from bitwright.quant.errors import InputError
from bitwright.quant.functionalize import functionalize
from bitwright.quant.fx_nodes import KIND, MODULE, REF, SOURCE, operator_type
from bitwright.quant.graph import SourceLine, TensorKind, TensorRef
from bitwright.quant.passes.fold_constants import fold_constants
from bitwright.quant.preserve import preserved

__all__ = ["CaptureError", "CaptureFailure", "Watch", "capture", "identify"]

Watch = Callable[[str, Any], None]


def capture(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    region: str = "",
    called_from: SourceLine | None = None,
    watch: Watch | None = None,
) -> CapturedModel:
    """Captures a network in eval mode; the network itself, its mode and its buffers stay as they were.

    Args:
        model: any module that `torch.export` can trace.
        args: example arguments of `forward`; their shapes become the shapes of the captured network.
        kwargs: keyword arguments likewise.
        region: the name under which the tensors are known when the model is a part of a larger one.
        called_from: the user's line that calls it then; operators of modules without code of the user's own get it.
        watch: called with the name of each step and the network behind it: a module behind `exported` and `functional`,
            a `CapturedModel` behind `canonical`.

    Raises:
        CaptureError: `forward` cannot be traced, or it changes its arguments or tensors that are no buffers.
        InputError: a weight contains NaN or infinity.
    """
    _check_finite(model)
    named, seen = dict(kwargs or {}), watch or _unseen
    program, lost = _export(model, tuple(args), named, seen)
    if lost and keeps_only_caches(model, tuple(args), named):
        with preserved(model):
            fill(model, tuple(args), named)
            program, lost = _export(model, tuple(args), named, seen)
    if lost:
        raise CaptureError(located(lost, model, Hazard.STATE))
    try:
        lifted = _lift(program, region, called_from)
    except CaptureError as error:
        raise CaptureError(located(error.failure, model, Hazard.ARGUMENT)) from None
    seen("canonical", lifted)
    return fold_constants(lifted)


def _unseen(step: str, network: object) -> None:
    """Nobody watches."""


def _export(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], watch: Watch
) -> tuple[torch.export.ExportedProgram, CaptureFailure | None]:
    """The functional program, and what of the model's state it has lost."""
    try:
        with (
            preserved(model),
            dataclasses_known(model, (args, kwargs)),
            warnings.catch_warnings(record=True) as said,
            _quiet(_TALKATIVE),
            _all_frames(),
        ):
            warnings.simplefilter("always")
            enter_eval(model)
            exported = torch.export.export(model, args, kwargs, strict=False)
            if watch is not _unseen:
                watch("exported", exported.module())  # a copy: the next step writes into the graph
            program = functionalize(exported)
            if watch is not _unseen:
                watch("functional", program.module())
    except (Exception, SystemExit) as error:  # torch.export raises whatever forward and its own passes raise
        raise CaptureError(failure_of(error)) from error
    return program, lost_state(str(warning.message) for warning in said)


# torch logs whole graphs when a guard fails; the failure below says the same in three lines.
_TALKATIVE = "torch.fx.experimental.symbolic_shapes"


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    disabled, logger.disabled = logger.disabled, True
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.disabled = disabled


@contextlib.contextmanager
def _all_frames() -> Iterator[None]:
    """Lets torch record every frame of the user's code, not only those of functions called `forward`.

    Its own frames, fifty of them for every operator, are not written out: nobody reads them.
    """
    tracer: Any = torch.fx.proxy.TracerBase
    original = getattr(tracer, "_filter_traceback_frames", None)
    if original is None:  # another version of torch: its own choice of frames has to do
        yield
        return
    tracer._filter_traceback_frames = lambda self, frames: traceback.StackSummary.from_list(
        [frame for frame in frames if frame.filename == __file__ or not frame.filename.startswith(LIBRARY)]
    )
    try:
        yield
    finally:
        tracer._filter_traceback_frames = original


def _check_finite(model: torch.nn.Module) -> None:
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if torch.nn.parameter.is_lazy(tensor):
            raise InputError(f"{name} has no shape yet; run the model once before it is captured")
        if not tensor.is_floating_point():
            continue
        # Infinity is what attention masks are made of; in a parameter it is a wrong checkpoint.
        wrong = tensor.isnan() if not isinstance(tensor, torch.nn.Parameter) else ~tensor.isfinite()
        if wrong.any():
            raise InputError(f"{name} contains NaN or infinity; check the checkpoint it was loaded from")


_KINDS = {
    InputKind.PARAMETER: TensorKind.PARAMETER,
    InputKind.BUFFER: TensorKind.BUFFER,
    InputKind.CONSTANT_TENSOR: TensorKind.CONSTANT,
    InputKind.USER_INPUT: TensorKind.INPUT,
}


def _lift(program: torch.export.ExportedProgram, region: str, called_from: SourceLine | None) -> CapturedModel:
    signature = program.graph_signature
    graph = torch.fx.Graph()
    copied: dict[torch.fx.Node, torch.fx.Node] = {}
    graph.graph_copy(program.graph, copied)
    graph.output(torch.fx.node.map_arg(program.graph.output_node().args[0], copied.__getitem__))
    for old, new in copied.items():
        new.meta = dict(old.meta)
    by_name = {node.name: copied[node] for node in program.graph.nodes if node.op == "placeholder"}
    mutated = {spec.target for spec in signature.output_specs if spec.kind is OutputKind.BUFFER_MUTATION}
    values: dict[str, torch.Tensor] = {}
    for spec in signature.input_specs:
        node = by_name[spec.arg.name]
        path = spec.target or f"${spec.arg.name}"
        if spec.kind not in _KINDS:
            raise CaptureError(_not_a_tensor(path, spec.kind))
        node.meta[KIND] = TensorKind.STATE if spec.target in mutated else _KINDS[spec.kind]
        node.meta[REF] = (TensorRef(region, path),)
        if spec.kind is not InputKind.USER_INPUT:
            source = program.state_dict if path in program.state_dict else program.constants
            values[node.name] = source[path].detach().clone()  # what is trained on later is another network
    states = _state_names(signature, by_name)
    graph.output_node().meta["bitwright_state"] = states
    _restore_batch_norm(graph)
    identify(graph, region, called_from)
    canonicalize(graph)
    _drop_unused(graph, values, set(states))
    spec_in, spec_out = program.call_spec.in_spec, program.call_spec.out_spec
    assert spec_in is not None and spec_out is not None  # an exported program always has both
    return CapturedModel(fx_graph=graph, values=values, in_spec=spec_in, out_spec=spec_out)


def _not_a_tensor(path: str, kind: InputKind) -> CaptureFailure:
    return CaptureFailure(
        reason=f"{path} is no tensor ({kind.name.lower().replace('_', ' ')})",
        source=None,
        suggestion="keep script objects out of forward, or capture the part around them as regions",
    )


def _state_names(signature: torch.export.ExportGraphSignature, by_name: Mapping[str, torch.fx.Node]) -> list[str]:
    placeholder = {spec.target: by_name[spec.arg.name].name for spec in signature.input_specs if spec.target}
    names = []
    for spec in signature.output_specs:
        if spec.kind is OutputKind.BUFFER_MUTATION and spec.target:
            names.append(placeholder[spec.target])
        elif spec.kind is not OutputKind.USER_OUTPUT:
            raise CaptureError(
                CaptureFailure(
                    reason=f"forward mutates its argument {spec.target!r} in place ({spec.kind.name.lower()})",
                    source=None,
                    suggestion="return the new value as an output, or keep it in a registered buffer",
                )
            )
    return names


def _restore_batch_norm(graph: torch.fx.Graph) -> None:
    """Decompositions turn a batch norm into an operator with three results, of which inference needs one."""
    for node in list(graph.nodes):
        if operator_type(node) != "batch_norm" or node.target is torch.ops.aten.batch_norm.default:
            continue
        x, weight, bias, mean, var, momentum, eps = node.args
        with graph.inserting_before(node):
            arguments = (x, weight, bias, mean, var, False, momentum, eps, False)
            norm = graph.call_function(torch.ops.aten.batch_norm.default, arguments)
        norm.meta = {**node.meta, "val": node.meta["val"][0]}
        for user in list(node.users):
            user.replace_all_uses_with(norm)
            graph.erase_node(user)
        graph.erase_node(node)


def identify(graph: torch.fx.Graph, region: str, called_from: SourceLine | None) -> None:
    """Gives every operator result its reference, and every node its module and source line."""
    ordinals: Counter[tuple[str, int]] = Counter()
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        path, call, module_type = _module_of(node)
        node.meta[MODULE] = (path, module_type)
        node.meta[SOURCE] = _source_of(node) or called_from
        node.meta[REF] = ()
        if not operator_type(node):
            continue
        value = node.meta.get("val")
        ordinal = ordinals[path, call]
        ordinals[path, call] += 1
        parts = value if isinstance(value, list | tuple) else [value]
        node.meta[REF] = tuple(
            TensorRef(region, path, call, ordinal, i) if isinstance(part, torch.Tensor) else None
            for i, part in enumerate(parts)
        )


def _module_of(node: torch.fx.Node) -> tuple[str, int, str]:
    stack = list((node.meta.get("nn_module_stack") or {}).items())
    if not stack:
        return "", 0, ""
    key, (path, module_type) = stack[-1]
    call = re.search(r"@(\d+)$", key)
    name = module_type if isinstance(module_type, str) else module_type.__name__
    return path, int(call.group(1)) if call else 0, name.rsplit(".", 1)[-1]


def _source_of(node: torch.fx.Node) -> SourceLine | None:
    frames = re.findall(r'File "([^"]+)", line (\d+), in \S+\n\s*(.*)', node.meta.get("stack_trace") or "")
    for file, line, text in reversed(frames):
        if file == __file__:
            break  # what lies further out called this module, not the user's forward
        if not file.startswith(LIBRARY):
            return SourceLine(file, int(line), text.strip())
    return None


def _drop_unused(graph: torch.fx.Graph, values: dict[str, torch.Tensor], states: set[str]) -> None:
    for node in reversed(list(graph.nodes)):
        if node.users or node.op == "output":
            continue
        if node.op == "call_function" or (node.name in values and node.name not in states):
            values.pop(node.name, None)
            graph.erase_node(node)
