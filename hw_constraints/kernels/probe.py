"""What a runtime fuses, asked of the runtime itself: minimal models with and without the operator in question.

An operator is fused behind a kernel when the executed graph of the kernel with it has not one node more than that of
the kernel without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from bitwright.hw_constraints.backends import Backend, Session, get_backend
from bitwright.hw_constraints.kernels.kernel import Family, Kernel, Shape
from bitwright.hw_constraints.kernels.known_rules import known_rules
from bitwright.hw_constraints.kernels.minimal_model import minimal_model
from bitwright.hw_constraints.kernels.rules import ANY, ANY_BUT_BLOCKED, BLOCKED, FusionRules
from bitwright.quant.errors import InputError

_CHANNELS, _SIDE, _TOKENS = 32, 14, 16
_PICTURE: Shape = (1, _CHANNELS, _SIDE, _SIDE)
_FUSIBLE = ("relu", "clip", "sigmoid", "tanh", "leakyrelu", "hardsigmoid", "hardswish", "gelu", "elu", "silu")
_ASKED = frozenset({"add", "activation+add", *_FUSIBLE})
_UNARY = {
    **{"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "leakyrelu": "LeakyRelu", "hardsigmoid": "HardSigmoid"},
    **{"hardswish": "HardSwish", "gelu": "Gelu", "elu": "Elu", "erf": "Erf", "softplus": "Softplus"},
}
_ALONE = frozenset({"constant", "reshape", "transpose"})  # of constants: runtimes do these when they load


def probe_rules(runtime: str) -> FusionRules:
    """Probes which operators the installed version fuses, and in which layout it keeps the others.

    What is not asked (which operators are free, what is written as several and runs as one) is taken from what is
    known of the runtime.

    Raises:
        InputError: nothing is known of it.
        MissingExtraError: it is not installed.
    """
    known, backend = known_rules(runtime), get_backend(runtime)
    probe = _Probe(backend, known)
    epilogues = dict(known.epilogues)
    for family in (Family.CONV, Family.POINTWISE, Family.DEPTHWISE, Family.GROUPED):
        for behind in ((), ("add",)):
            key = "+".join((family, *behind)) + "/float32"
            found = probe.fused(_convolution(family, known, *behind), _FUSIBLE if behind else _ASKED)
            epilogues[key] = found | (known.epilogues[key] - _ASKED)
    return replace(known, version=backend.version(), epilogues=epilogues, layouts=probe.layouts(known))


def _convolution(family: Family, rules: FusionRules, *epilogue: str) -> Kernel:
    side = 1 if family is Family.POINTWISE else 3
    group = {Family.DEPTHWISE: _CHANNELS, Family.GROUPED: 2}.get(family, 1)
    return Kernel(
        family=family,
        op="Conv",
        format="float32",
        inputs=(_PICTURE, *[_PICTURE] * ("add" in epilogue)),
        outputs=(_PICTURE,),
        weight=(_CHANNELS, _CHANNELS // group, side, side),
        epilogue=epilogue,
        attributes=(
            ("dilations", (1, 1)),
            ("group", group),
            ("kernel_shape", (side, side)),
            ("pads", (side // 2,) * 4),
            ("strides", (1, 1)),
        ),
        layout=rules.layout(family, "Conv", "float32"),
    )


class _Probe:
    def __init__(self, backend: Backend, known: FusionRules) -> None:
        self._backend, self._known = backend, known

    def fused(self, kernel: Kernel, ops: Iterable[str]) -> frozenset[str]:
        """Those that cost no node of their own behind a kernel."""
        alone = self.nodes(kernel)
        found = set()
        for op in ops:
            behind = op.split("+")
            first = replace(kernel, epilogue=(*kernel.epilogue, "relu")) if behind[0] == "activation" else kernel
            inputs = (*kernel.inputs, *[_PICTURE] * (behind[-1] == "add"))
            longer = replace(first, epilogue=(*first.epilogue, behind[-1]), inputs=inputs)
            if alone is not None and self.nodes(longer) == alone:
                found.add(op)
        return frozenset(found)

    def nodes(self, kernel: Kernel) -> int | None:
        """Nodes that are executed for a kernel; None where the runtime cannot run it."""
        model = minimal_model(kernel, self._backend.name, branches=1)
        try:
            more, less = (self._backend.load(each) for each in (model.with_kernel, model.without_kernel))
        except InputError:
            return None
        return _executed(more) - _executed(less)

    def layouts(self, known: FusionRules) -> dict[str, str]:
        """The known layouts, with those operators moved that turn out to work in blocks, or not to."""
        layouts = dict(known.layouts)
        if BLOCKED not in layouts.values():
            return layouts
        for name, op in _UNARY.items():
            kernel = Kernel(
                family=Family.ACTIVATION,
                op=op,
                format="float32",
                inputs=(_PICTURE,),
                outputs=(_PICTURE,),
                layout=BLOCKED,
            )
            # Behind blocks it is either one node, or one with a reorder on each side.
            found = ANY if self.nodes(kernel) == 1 else ANY_BUT_BLOCKED
            if known.layout(Family.ACTIVATION, op, "float32") != found:
                layouts[f"{name}/float32"] = found
        return layouts


def _executed(session: Session) -> int:
    return sum(node.op.lower() not in _ALONE for node in session.executed_graph())
