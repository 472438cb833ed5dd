"""For tests of rules and targets, ours and other packages': graphs written by hand, and what every rule must do."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.lint import lint, load_rule
from bitwright.hw_constraints.target import load_target
from bitwright.quant.graph import Graph, Node, SourceLine, TensorInfo, TensorKind, TensorRef
from bitwright.quant.plan import QuantPlan

if TYPE_CHECKING:
    from bitwright.quant.capture import CaptureFailure

Shape = tuple[int | None, ...]


class GraphBuilder:
    """Writes a `Graph` call by call; each call is a line of the imaginary file `net.py`."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.tensors: dict[TensorRef, TensorInfo] = {}
        self.inputs: list[TensorRef] = []
        self._counter = itertools.count()

    def input(self, *shape: int | None, dtype: str = "float32") -> TensorRef:
        """An argument of the network."""
        ref = self._tensor(TensorRef("", f"$x{len(self.inputs)}"), shape, dtype, TensorKind.INPUT)
        self.inputs.append(ref)
        return ref

    def parameter(self, *shape: int | None, dtype: str = "float32") -> TensorRef:
        """A weight, which has no values here."""
        return self._tensor(TensorRef("", f"p{next(self._counter)}"), shape, dtype, TensorKind.PARAMETER)

    def call(
        self,
        op: str,
        *operands: TensorRef | None,
        shape: Shape,
        dtype: str = "float32",
        line: str = "",
        module: str = "",
        **attributes: Any,
    ) -> TensorRef:
        """One operator call with one result.

        Args:
            op: the operator type.
            operands: its tensors.
            shape: of the result.
            dtype: of the result.
            line: the code that it came from.
            module: the path of the module that made the call.
            attributes: by ATen's argument names.
        """
        position = len(self.nodes)
        ref = self._tensor(TensorRef("", module, 0, position), shape, dtype, TensorKind.ACTIVATION)
        self.nodes.append(
            Node(
                name=f"{op}_{position}",
                op=op,
                inputs=operands,
                outputs=(ref,),
                attributes=attributes,
                module_path=module,
                source=SourceLine("net.py", position + 1, line or f"x = {op}(x)"),
            )
        )
        return ref

    def conv2d(self, x: TensorRef, out: int, kernel: int = 3, *, stride: int = 1, groups: int = 1) -> TensorRef:
        """A convolution that keeps the image's size up to the stride."""
        batch, channels, height, width = self.tensors[x].shape
        assert channels and height and width
        weight = self.parameter(out, channels // groups, kernel, kernel)
        size = (batch, out, -(-height // stride), -(-width // stride))
        pad = kernel // 2
        arguments: dict[str, Any] = {
            "stride": (stride, stride),
            "padding": (pad, pad),
            "dilation": (1, 1),
            "groups": groups,
        }
        return self.call("conv2d", x, weight, None, shape=size, **arguments)

    def graph(self, *outputs: TensorRef) -> Graph:
        """The network that returns `outputs`."""
        return Graph(nodes=tuple(self.nodes), tensors=self.tensors, inputs=tuple(self.inputs), outputs=outputs)

    def _tensor(self, ref: TensorRef, shape: Shape, dtype: str, kind: TensorKind) -> TensorRef:
        self.tensors[ref] = TensorInfo(ref=ref, shape=shape, dtype=dtype, kind=kind)
        return ref


@dataclass(frozen=True, kw_only=True)
class RuleCase:
    """A network on which a rule must speak, or must not.

    Attributes:
        name: for the test report.
        target: the id of a target.
        graph: the network; None when capture failed.
        plan: how it is quantized.
        capture_failures: why capture failed.
        unused_modules: modules that take no part in any result.
        ranges: what calibration saw.
        lines: the lines that the findings must point to, in order; empty for a network that is fine.
        says: a part of the first finding's text.
        severity: of all findings; None for any.
    """

    name: str
    target: str
    graph: Graph | None = None
    plan: QuantPlan | None = None
    capture_failures: tuple[CaptureFailure, ...] = ()
    unused_modules: tuple[str, ...] = ()
    ranges: Mapping[TensorRef, tuple[float, float]] = field(default_factory=dict)
    lines: tuple[int | None, ...] = ()
    says: str = ""
    severity: Severity | None = None


def check_rule_case(rule: str, case: RuleCase) -> None:
    """What every rule must do: speak where it should and nowhere else, and be of use to the reader.

    Raises:
        AssertionError: it does not.
    """
    findings = run_rule(rule, case)
    assert tuple(each.source.line if each.source else None for each in findings) == case.lines
    for finding in findings:
        assert finding.rule == rule == load_rule(rule).name
        assert case.severity in (None, finding.severity)
        for text in (finding.found, finding.allowed, finding.suggestion):
            assert text and text == text.strip() and "\n" not in text
        if finding.focus and finding.source:
            assert finding.focus in finding.source.text
    if findings:
        assert case.says in f"{findings[0].found} | {findings[0].allowed} | {findings[0].suggestion}"


def run_rule(rule: str, case: RuleCase) -> tuple[Finding, ...]:
    """The findings of one rule alone, in the order of the source lines."""
    target = load_target(case.target)
    found: Iterable[Finding] = lint(
        case.graph,
        target,
        plan=case.plan,
        capture_failures=case.capture_failures,
        unused_modules=case.unused_modules,
        ranges=case.ranges,
        rules=[rule],
    )
    return tuple(sorted(found, key=lambda each: each.source.line if each.source else 0))
