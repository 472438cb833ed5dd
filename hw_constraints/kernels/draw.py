"""Random kernels for a table: the sizes that networks have, from 32 x 32 pictures of 8 channels to 512 x 512.

Sizes are log-uniform. What a runtime fuses and how it lays tensors out comes from its rules, so that a drawn kernel is
one that a network can contain there.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from bitwright.hw_constraints.kernels import unusual
from bitwright.hw_constraints.kernels.draw_moves import REDUCTIONS, Move, combined, copied, normalized, reduced
from bitwright.hw_constraints.kernels.kernel import CONVOLUTIONS, Family, Kernel, Shape, Value
from bitwright.hw_constraints.kernels.known_rules import known_rules
from bitwright.hw_constraints.kernels.random_sizes import RandomSizes
from bitwright.hw_constraints.kernels.rules import ANY, ANY_BUT_BLOCKED, BLOCKED, PLAIN, FusionRules

_MOST_MACS = 1.5e9
_MOST_ELEMENTS = 6e6  # of a tensor
_TRIES = 200
_UNARY = {
    **{"relu": "Relu", "clip": "Clip", "sigmoid": "Sigmoid", "tanh": "Tanh", "hardswish": "HardSwish", "gelu": "Gelu"},
    **{
        "hardsigmoid": "HardSigmoid",
        "leakyrelu": "LeakyRelu",
        "elu": "Elu",
        "erf": "Erf",
        "exp": "Exp",
        "sqrt": "Sqrt",
    },
}
_DILATED, _DILATIONS = 0.08, (2, 2, 2, 4, 6, 12)  # of convolutions of 3 x 3: segmentation, sound
_COMMON = ("relu", "relu", "relu", "clip", "hardswish", "silu", "gelu", "sigmoid", "leakyrelu", "hardsigmoid")
FORMATS = ("float32", "int8")


def draw_kernels(
    family: Family | None,
    number_format: str,
    runtime: str,
    count: int,
    seed: int = 0,
    rules: FusionRules | None = None,
) -> list[Kernel]:
    """Different random kernels, the same for the same arguments.

    Args:
        family: which kind; None takes all kinds that are drawn, in turn.
        number_format: `float32` or `int8`; families without such kernels on this runtime are left out.
        runtime: the backend's name.
        count: how many; fewer come back where so many different ones do not exist.
        seed: of the draw.
        rules: what the runtime fuses; None takes what is known.
    """
    draw = _Draw(
        number_format, rules or known_rules(runtime), random.Random(f"{family}/{number_format}/{runtime}/{seed}")
    )
    families = [one for one in draw.makers if family in (None, one) and draw.can(one)]
    found: dict[str, Kernel] = {}
    for attempt in range(_TRIES * count if families else 0):
        kernel = draw.one(families[attempt % len(families)])
        if kernel is not None:
            found.setdefault(kernel.key, kernel)
        if len(found) == count:
            break
    return list(found.values())


class _Draw:
    def __init__(self, number_format: str, rules: FusionRules, choice: random.Random) -> None:
        self._format, self._rules, self._random, self._sizes = number_format, rules, choice, RandomSizes(choice)
        # With one channel OpenVINO's orders are the same, so that what is glanced at in a minimal model needs none.
        self._fewest = 2 if rules.runtime == "openvino" else 1
        self.makers: dict[Family, Callable[[], Kernel]] = {
            Family.CONV: self._conv,
            Family.POINTWISE: self._pointwise,
            Family.DEPTHWISE: self._depthwise,
            Family.GROUPED: self._grouped,
            Family.CONV_TRANSPOSE: self._conv_transpose,
            Family.LINEAR: self._linear,
            Family.MATMUL: self._matmul,
            Family.ATTENTION: self._attention,
            Family.ELEMENTWISE: partial(self._move, combined),
            Family.ACTIVATION: self._activation,
            Family.POOL: self._pool,
            Family.GLOBAL_POOL: self._global_pool,
            Family.CONCAT: self._concat,
            Family.SOFTMAX: partial(self._move, normalized),
            Family.NORM: self._norm,
            Family.RESIZE: self._resize,
            Family.COPY: partial(self._move, copied),
            Family.OTHER: partial(self._move, reduced),
            Family.VIEW: self._view,
            Family.QUANTIZE: self._conversion,
            Family.DEQUANTIZE: self._conversion,
            Family.REORDER: self._reorder,
        }
        self._family = Family.CONV

    def can(self, family: Family) -> bool:
        """Whether this runtime has such kernels in this format."""
        if family in (Family.QUANTIZE, Family.DEQUANTIZE):
            return self._format == "int8"
        if family is Family.ATTENTION:
            return self._format == "float32" and "attention" in self._rules.composites
        if family is Family.VIEW:
            return "reshape" not in self._rules.free
        if self._format != "int8" or family in CONVOLUTIONS or family is Family.REORDER:
            return True
        return any(self._rules.works_in_codes(op, mode) for op in _OPS[family] for mode in ("", *_RESIZE_MODES))

    def one(self, family: Family) -> Kernel | None:
        """A kernel; None when the draw came out too large or is not computed in this format."""
        self._family = family
        kernel = self.makers[family]()
        largest = max(map(math.prod, (*kernel.inputs, *kernel.outputs)), default=0)
        if kernel.macs > _MOST_MACS or largest > _MOST_ELEMENTS or min(map(min, kernel.outputs)) < 1:
            return None
        coded = self._format == "int8" and family not in (Family.QUANTIZE, Family.DEQUANTIZE, Family.REORDER)
        return None if coded and not self._rules.works_in_codes(kernel.op, kernel.attribute("mode", "")) else kernel

    def _make(
        self,
        op: str,
        inputs: Sequence[Shape],
        outputs: Sequence[Shape],
        *,
        weight: Shape = (),
        epilogue: tuple[str, ...] = (),
        attributes: Mapping[str, Value] | None = None,
    ) -> Kernel:
        conversion = self._family in (Family.QUANTIZE, Family.DEQUANTIZE)
        return Kernel(
            family=self._family,
            op=op,
            format="int8" if conversion else self._format,
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            weight=weight,
            epilogue=epilogue,
            attributes=tuple(sorted((attributes or {}).items())),
            layout=self._layout(op, (*inputs, *outputs), weight),
        )

    def _layout(self, op: str, shapes: Sequence[Shape], weight: Shape) -> str:
        rules = self._rules
        layout = rules.layout(self._family, op, self._format)
        if any(len(shape) != 4 for shape in shapes):
            return PLAIN
        aligned = all(shape[1] % rules.vector == 0 for shape in shapes)
        if self._family is Family.ELEMENTWISE:
            aligned = len(set(shapes)) == 1 and not weight  # blocks may be padded, but are not broadcast
        elif self._family in (Family.CONV, Family.POINTWISE, Family.DEPTHWISE):
            few = shapes[0][1] < rules.vector and self._family is not Family.DEPTHWISE
            aligned = few or shapes[0][1] % rules.blocked_multiple == 0
        elif self._family is Family.GROUPED:
            groups = shapes[0][1] // weight[1]
            aligned = weight[1] % rules.vector == 0 and weight[0] // groups % rules.vector == 0
        if layout in (ANY, ANY_BUT_BLOCKED):
            preferred = rules.layout(Family.CONV, "Conv", self._format)
            blocked = preferred == BLOCKED and (layout == ANY_BUT_BLOCKED or not aligned)
            return PLAIN if blocked or self._random.random() < 0.2 else preferred
        if layout == BLOCKED and not aligned:
            return PLAIN
        return layout

    def _convolution(self, picture: Shape, out: int, side: tuple[int, int], stride: int, group: int = 1) -> Kernel:
        often = _DILATED * (2 if self._family is Family.DEPTHWISE else 1)
        dilated = 3 <= max(side) <= 5 and stride == 1 and self._random.random() < often
        dilation = self._random.choice(_DILATIONS) if dilated else 1
        spread = [(one - 1) * dilation + 1 for one in side]
        pads = [0, 0] if stride >= max(side) > 1 else [one // 2 for one in spread]
        sizes = [(size + 2 * pad - one) // stride + 1 for size, pad, one in zip(picture[2:], pads, spread, strict=True)]
        result = (1, out, *sizes)
        epilogue = self._epilogue()
        return self._make(
            "Conv",
            [picture, *[result] * any(op.endswith("add") for op in epilogue)],
            [result],
            weight=(out, picture[1] // group, *side),
            epilogue=epilogue,
            attributes={
                "dilations": (dilation, dilation),
                "group": group,
                "kernel_shape": side,
                "pads": (*pads, *pads),
                "strides": (stride, stride),
            },
        )

    def _epilogue(self) -> tuple[str, ...]:
        fuses = self._rules.epilogues.get(f"{self._family}/{self._format}", frozenset())
        draw = self._random.random()
        add = next((op for op in ("add", "requantize+add") if op in fuses), None)
        activation = self._random.choice(_COMMON)
        if self._format == "int8":  # writing codes does what a bound does
            last = ("dequantize",) if draw > 0.95 and "dequantize" in fuses else ()
            return (add,) if add and draw < 0.25 else last
        if add and draw < 0.25:
            return (add, "relu") if "relu" in fuses and draw < 0.15 else (add,)
        return (activation,) if activation in fuses and draw < 0.8 else ()

    def _move(self, draw: Callable[[RandomSizes], Move]) -> Kernel:
        move = draw(self._sizes)
        return self._make(move.op, move.inputs, [move.output], weight=move.weight, attributes=move.attributes)

    def _conv(self) -> Kernel:
        side = self._random.choice([3] * 10 + [2, 4, 5, 5, 7])
        sides = (side, side) if self._random.random() < 0.85 else unusual.window(self._random)
        stride = self._random.choice([1, 1, 1, 2]) if side != 4 else 4
        picture, out = self._sizes.picture(), self._sizes.channels()
        draw = self._random.random()
        if draw < 0.15:  # the first layer
            picture, stride = (1, 3, *[self._sizes.between(32, 256)] * 2), self._random.choice([1, 2, 2])
        elif draw < 0.23:
            picture, out = unusual.few_channels(self._sizes, self._fewest)
        return self._convolution(picture, out, sides, stride)

    def _pointwise(self) -> Kernel:
        picture, out = self._sizes.picture(), self._sizes.channels()
        if self._random.random() < 0.06:
            picture, out = unusual.few_channels(self._sizes, self._fewest)
        return self._convolution(picture, out, (1, 1), self._random.choice([1] * 9 + [2]))

    def _depthwise(self) -> Kernel:
        picture, side = self._sizes.picture(), self._random.choice([3, 3, 3, 5, 5, 7])
        sides = (side, side) if self._random.random() < 0.8 else unusual.window(self._random)
        return self._convolution(picture, picture[1], sides, self._random.choice([1, 1, 2]), picture[1])

    def _grouped(self) -> Kernel:
        if self._random.random() < _MULTIPLIED:
            picture, times = self._sizes.picture(), self._random.choice([2, 2, 3, 4, 6])
            return self._convolution(picture, times * picture[1], (3, 3), self._random.choice([1, 2]), picture[1])
        group, picture = self._random.choice([2, 2, 4, 8, 32]), self._sizes.picture()
        width = max(2, self._random.choice([4, 8, 16, 24, 32, picture[1] // group]))
        picture = (1, group * width, *picture[2:])
        side = self._random.choice([1, 3, 3, 3, 3, 5, 7])
        out = width if self._random.random() < 0.7 else self._random.randint(2, 2 * width)
        return self._convolution(picture, group * out, (side, side), self._random.choice([1, 1, 2]), group)

    def _conv_transpose(self) -> Kernel:
        picture, out = self._sizes.picture(), self._sizes.channels()
        window = unusual.transposed_window(self._random)
        if self._random.random() < 0.6:  # doubles height and width
            side, pad, more = self._random.choice([(2, 0, 0), (4, 1, 0), (3, 1, 1)])
            window = unusual.TransposedWindow(sides=(side,) * 2, strides=(2, 2), pads=(pad,) * 2, more=(more,) * 2)
        how: dict[str, Value] = {"dilations": (1, 1), "group": 1, "kernel_shape": window.sides}
        how |= {"pads": window.pads * 2, "strides": window.strides}
        how |= {"output_padding": window.more} if any(window.more) else {}
        sizes = [size * stride for size, stride in zip(picture[2:], window.strides, strict=True)]
        weight = (picture[1], out, *window.sides)
        return self._make("ConvTranspose", [picture], [(1, out, *sizes)], weight=weight, attributes=how)

    def _linear(self) -> Kernel:
        rows = 1 if self._random.random() < 0.4 else self._sizes.between(8, 512)
        weight = (self._sizes.channels(16, 4096), self._sizes.channels(8, 4096))
        in_codes = self._format == "int8"
        fuses = self._rules.epilogues.get(f"linear/{self._format}", frozenset())
        ends = [(), *[(op,) for op in ("dequantize", "relu", "gelu") if op in fuses]]
        if self._random.random() < 0.3 and not in_codes:
            return self._make("MatMul", [(1, rows, weight[0])], [(1, rows, weight[1])], weight=weight)
        epilogue = self._random.choice(ends)
        return self._make("Gemm", [(rows, weight[0])], [(rows, weight[1])], weight=weight, epilogue=epilogue)

    def _matmul(self) -> Kernel:
        heads, tokens, width = (
            self._random.choice([1, 2, 3, 4, 6, 8, 12]),
            self._sizes.between(16, 400),
            self._sizes.between(16, 96),
        )
        queries, keys = (1, heads, tokens, width), (1, heads, width, tokens)
        scores = (1, heads, tokens, tokens)
        if self._random.random() < 0.5:
            return self._make("MatMul", [queries, keys], [scores])
        return self._make("MatMul", [scores, queries], [queries])

    def _attention(self) -> Kernel:
        heads, tokens, width = (
            self._random.choice([1, 2, 3, 4, 6, 8, 12]),
            self._sizes.between(16, 400),
            self._sizes.between(16, 96),
        )
        queries, keys = (1, heads, tokens, width), (1, heads, width, tokens)
        if self._random.random() < 0.7:
            moved = (1, tokens, heads, width)
            attributes = {"transposed": 1}
            return self._make(
                *("Attention", [queries, keys, queries], [moved]), epilogue=("transpose",), attributes=attributes
            )
        return self._make("Attention", [queries, keys, queries], [queries])

    def _activation(self) -> Kernel:
        op, shape = self._random.choice([*_UNARY, *({"silu"} & self._rules.composites)]), self._sizes.tensor()
        bounds = {"const:1": 0.0, "const:2": 6.0} if op == "clip" else {}
        return self._make(_UNARY.get(op, op), [shape], [shape], attributes=bounds)

    def _pool(self) -> Kernel:
        op, picture = self._random.choice(["MaxPool", "AveragePool"]), self._sizes.picture()
        side, stride = self._random.choice([(2, 2), (2, 2), (3, 2), (3, 2), (3, 1), (5, 1)])
        pad = side // 2 if side > 2 else 0
        sizes = [(size + 2 * pad - side) // stride + 1 for size in picture[2:]]
        how: dict[str, Value] = {"kernel_shape": (side, side), "strides": (stride, stride), "pads": (pad,) * 4}
        return self._make(op, [picture], [(*picture[:2], *sizes)], attributes={**how, "ceil_mode": 0})

    def _global_pool(self) -> Kernel:
        picture = self._sizes.picture()
        return self._make("GlobalAveragePool", [picture], [(*picture[:2], 1, 1)])

    def _concat(self) -> Kernel:
        picture, parts = self._sizes.picture(), self._random.choice([2, 2, 2, 3, 4])
        shapes = [(1, picture[1] if part else self._sizes.channels(), *picture[2:]) for part in range(parts)]
        result = (1, sum(shape[1] for shape in shapes), *picture[2:])
        return self._make("Concat", shapes, [result], attributes={"axis": 1})

    def _norm(self) -> Kernel:
        if self._random.random() < 0.6:
            shape = self._sizes.tokens()
            return self._make("LayerNormalization", [shape], [shape], attributes={"axis": -1})
        shape = self._sizes.picture()
        fuses = self._rules.epilogues.get("norm/float32", frozenset())
        ends = [(), *[(op,) for op in ("relu", "relu", "silu") if op in fuses]]
        return self._make("BatchNormalization", [shape], [shape], epilogue=self._random.choice(ends))

    def _resize(self) -> Kernel:
        picture, mode = self._sizes.picture(), self._random.choice(_RESIZE_MODES)
        times = self._random.choice([2, 2, 2, 4, 8])
        result = (*picture[:2], *(times * size for size in picture[2:]))
        how: dict[str, Value] = {"mode": mode}
        how |= (
            {"const:3": result} if self._random.random() < 0.5 else {"const:2": (1.0, 1.0, float(times), float(times))}
        )
        if mode == "linear":
            how |= {"coordinate_transformation_mode": "half_pixel"}
        else:
            how |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self._make("Resize", [picture], [result], attributes=how)

    def _view(self) -> Kernel:
        shape = self._sizes.picture()
        flat = (shape[0], shape[1], shape[2] * shape[3])
        return self._make("Reshape", [shape], [flat], attributes={"const:1": flat})

    def _conversion(self) -> Kernel:
        shape = self._sizes.tensor()
        op = "QuantizeLinear" if self._family is Family.QUANTIZE else "DequantizeLinear"
        return self._make(op, [shape], [shape])

    def _reorder(self) -> Kernel:
        preferred = self._rules.layout(Family.CONV, "Conv", self._format)
        shape = self._sizes.picture() if self._random.random() < 0.7 else (1, 3, *[self._sizes.between(32, 256)] * 2)
        if preferred == BLOCKED:
            shape = (1, max(1, shape[1] // self._rules.vector) * self._rules.vector, *shape[2:])
        source, target = self._random.choice([(PLAIN, preferred), (preferred, PLAIN)])
        return Kernel(
            family=Family.REORDER,
            op=f"{source}_to_{target}",
            format=self._format,
            inputs=(shape,),
            outputs=(shape,),
            layout=target,
        )


# Of grouped convolutions: several channels out of each one, for which no runtime takes its depthwise kernel.
_MULTIPLIED = 0.35
_RESIZE_MODES = ("nearest", "linear")
_OPS: dict[Family, tuple[str, ...]] = {
    Family.CONV_TRANSPOSE: ("ConvTranspose",),
    Family.LINEAR: ("Gemm", "MatMul"),
    Family.MATMUL: ("MatMul",),
    Family.ELEMENTWISE: ("Add", "Mul", "Sub"),
    Family.ACTIVATION: tuple(_UNARY.values()),
    Family.POOL: ("MaxPool", "AveragePool"),
    Family.GLOBAL_POOL: ("GlobalAveragePool",),
    Family.CONCAT: ("Concat",),
    Family.SOFTMAX: ("Softmax",),
    Family.NORM: ("LayerNormalization", "BatchNormalization"),
    Family.RESIZE: ("Resize",),
    Family.COPY: ("Transpose", "Slice"),
    Family.OTHER: REDUCTIONS,
    Family.VIEW: ("Reshape",),
}
