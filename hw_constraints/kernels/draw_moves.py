"""Random copies, sums and reductions: which axes they turn, repeat or go along decides what they cost."""

from __future__ import annotations

from dataclasses import dataclass, field

from bitwright.hw_constraints.kernels import unusual
from bitwright.hw_constraints.kernels.kernel import Shape, Value
from bitwright.hw_constraints.kernels.random_sizes import RandomSizes

_HEADS = (1, 2, 3, 4, 6, 8, 12)
REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceSum")


@dataclass(frozen=True, kw_only=True)
class Move:
    """An operator, what it reads and writes, and a constant operand's shape where it has one."""

    op: str
    inputs: tuple[Shape, ...]
    output: Shape
    weight: Shape = ()
    attributes: dict[str, Value] = field(default_factory=dict)


def copied(sizes: RandomSizes) -> Move:
    """Half of the channels; channels shuffled or moved; tokens turned, heads parted; any other order of axes."""
    choice = sizes.random
    if choice.random() < 0.3:
        shape = sizes.picture()
        half = (shape[0], max(1, shape[1] // 2), *shape[2:])
        bounds: dict[str, Value] = {"const:1": (0,), "const:2": (half[1],), "const:3": (1,), "const:4": (1,)}
        return Move(op="Slice", inputs=(shape,), output=half, attributes=bounds)
    draw = choice.random()
    if draw < 0.25:
        return _turned(*_turned_picture(sizes))
    if draw < 0.45:
        return _turned(sizes.tokens(), (0, 2, 1))
    if draw < 0.75:
        return _turned(*unusual.turned(choice))
    shape = (1, sizes.between(16, 400), choice.choice([1, 2, 3, 4, 6, 8]), sizes.between(16, 96))
    return _turned(shape, choice.choice([(0, 2, 1, 3), (0, 2, 3, 1), (0, 3, 1, 2)] if shape[2] > 1 else [(0, 3, 1, 2)]))


def _turned(shape: Shape, order: tuple[int, ...]) -> Move:
    return Move(
        op="Transpose", inputs=(shape,), output=tuple(shape[axis] for axis in order), attributes={"perm": order}
    )


def _turned_picture(sizes: RandomSizes) -> tuple[Shape, tuple[int, ...]]:
    """Channels of two groups shuffled, or moved behind height and width, or back."""
    _, channels, *sides = sizes.picture()
    if sizes.random.random() < 0.5:
        return (1, channels, *sides), sizes.random.choice([(0, 2, 3, 1), (0, 3, 1, 2)])
    return (1, 2, max(1, channels // 2), *sides), (0, 2, 1, 3, 4)


def combined(sizes: RandomSizes) -> Move:
    """Two tensors of one shape, one that repeats channels or any axes of the other, or a constant one."""
    choice = sizes.random
    op, shape = choice.choice(["Add", "Add", "Mul", "Mul", "Sub"]), sizes.tensor()
    draw = choice.random()
    if draw < 0.5:
        return Move(op=op, inputs=(shape, shape), output=shape)
    if draw < 0.65 and len(shape) == 4:
        return Move(op="Mul", inputs=(shape, (1, shape[1], 1, 1)), output=shape)
    if draw < 0.9:
        shape, other = unusual.repeated(choice)
        return Move(op=op, inputs=(shape, other), output=shape)
    return Move(op=op, inputs=(shape,), output=shape, weight=(1, shape[1], 1, 1) if len(shape) == 4 else shape[-1:])


def normalized(sizes: RandomSizes) -> Move:
    """Softmax of an attention's scores, or along an axis that is not the last one."""
    choice = sizes.random
    if choice.random() < 0.3:
        shape, axis = unusual.inner_axis(choice)
        return Move(op="Softmax", inputs=(shape,), output=shape, attributes={"axis": axis})
    tokens = sizes.between(16, 400)
    shape = (1, choice.choice(_HEADS), tokens, tokens)
    return Move(op="Softmax", inputs=(shape,), output=shape, attributes={"axis": choice.choice([-1, 3])})


def reduced(sizes: RandomSizes) -> Move:
    """Some axes of a tensor, next to each other or not; those of a picture's height and width are a pool's."""
    choice = sizes.random
    while True:
        shape = unusual.any_shape(choice)
        axes = tuple(axis for axis in range(1, len(shape)) if choice.random() < 0.4)
        if axes and axes != tuple(range(2, len(shape))) and len(axes) < len(shape) - 1:
            break
    kept = choice.randrange(2)
    output = tuple(1 if axis in axes else side for axis, side in enumerate(shape) if kept or axis not in axes)
    return Move(
        op=choice.choice(REDUCTIONS), inputs=(shape,), output=output, attributes={"const:1": axes, "keepdims": kept}
    )
