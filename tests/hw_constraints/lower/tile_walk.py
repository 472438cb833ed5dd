"""Walks a tiled nest tile by tile: the slow, plain truth that the closed forms are held against."""

from itertools import permutations, product

from bitwright.hw_constraints.lower.array_steps import TILED
from bitwright.hw_constraints.lower.tile_cost import BIAS_BYTES
from bitwright.hw_constraints.target_hardware import Loop, Operand

I, W, O = Operand.ACTIVATIONS, Operand.WEIGHTS, Operand.OUTPUTS  # noqa: E741 - the field's names


def ceil(value, step):
    return -(-value // step)


def lengths(work):
    found = (work.batch, work.groups, work.out_channels, work.in_channels, work.y.output, work.x.output)
    return dict(zip(TILED, found, strict=True))


def every_order():
    return list(permutations(TILED))


def pieces(length, size):
    return [(start, min(size, length - start)) for start in range(0, length, size)]


def padded(channels, machine):
    return ceil(channels, machine.channel_multiple) * machine.channel_multiple


class Walk:
    """One pass through all tiles: bytes by operand, cycles of the array, cycles in all, the widest live buffers."""

    def __init__(self, work, machine, sizes, order):
        self.work, self.machine = work, machine
        self.loaded = {I: 0, W: 0}
        self.partial = self.stored = self.compute = 0
        steps = list(self.steps(sizes, order))
        held = {I: None, W: None, O: None}
        finished = {}
        loads, moves, computes = [], [], []
        for at, step in enumerate(steps):
            load = 0
            for operand in (I, W):
                if held[operand] != (key := self.key(operand, step)):
                    held[operand] = key
                    count = self.bytes(operand, step)
                    self.loaded[operand] += count
                    load += count
            if held[O] != (key := self.key(O, step)):
                held[O] = key
                if key in finished:  # taken up again
                    self.partial += self.partial_bytes(step)
                    load += self.partial_bytes(step)
            finished[key] = finished.get(key, 0) + step[Loop.IN_CHANNELS][1]
            store = 0
            if at + 1 == len(steps) or self.key(O, steps[at + 1]) != key:
                if finished[key] == work.in_channels:
                    store = self.bytes(O, step)
                    self.stored += store
                else:
                    store = self.partial_bytes(step)
                    self.partial += store
            loads.append(load / machine.bytes_per_cycle)
            moves.append(store / machine.bytes_per_cycle)
            computes.append(self.cycles(step) + machine.tile_cycles)
        self.compute = sum(computes)
        overlapped = zip(computes[:-1], loads[1:], moves[:-1], strict=True)
        between = (
            max(run, into + out) if machine.double_buffered else run + into + out for run, into, out in overlapped
        )
        self.total = loads[0] + sum(between) + computes[-1] + moves[-1]

    def steps(self, sizes, order):
        runs = lengths(self.work)
        for indices in product(*(pieces(runs[loop], sizes[loop]) for loop in order)):
            yield dict(zip(order, indices, strict=True))

    def key(self, operand, step):
        loops = {
            I: [Loop.BATCH, Loop.GROUPS, Loop.IN_CHANNELS, Loop.OUT_Y, Loop.OUT_X],
            W: [Loop.GROUPS, Loop.OUT_CHANNELS, Loop.IN_CHANNELS],
            O: [Loop.BATCH, Loop.GROUPS, Loop.OUT_CHANNELS, Loop.OUT_Y, Loop.OUT_X],
        }[operand]
        if operand is W and self.work.weights_are_activations:
            loops = [*loops, Loop.BATCH]
        return tuple(step[loop][0] for loop in loops)

    def bytes(self, operand, step):
        if operand not in self.machine.streamed:
            return 0
        work = self.work
        size = {loop: piece[1] for loop, piece in step.items()}
        if operand is W:
            copies = size[Loop.BATCH] if work.weights_are_activations else 1
            weights = size[Loop.GROUPS] * size[Loop.OUT_CHANNELS] * size[Loop.IN_CHANNELS]
            weights *= work.y.kernel * work.x.kernel * copies
            first = step[Loop.IN_CHANNELS][0] == 0  # which is where a sum begins with its bias
            bias = first * work.has_bias * BIAS_BYTES * size[Loop.GROUPS] * size[Loop.OUT_CHANNELS]
            return ceil(weights * work.weight_bits, 8) + bias
        if operand is I:
            spans = []
            for loop, axis in ((Loop.OUT_Y, work.y), (Loop.OUT_X, work.x)):
                start, stop = axis.window(*step[loop])
                spans.append(max(stop - start, 0))
            channels = padded(size[Loop.GROUPS] * size[Loop.IN_CHANNELS], self.machine)
            return work.operands * ceil(size[Loop.BATCH] * channels * spans[0] * spans[1] * work.input_bits, 8)
        channels = padded(size[Loop.GROUPS] * size[Loop.OUT_CHANNELS], self.machine)
        return ceil(size[Loop.BATCH] * channels * size[Loop.OUT_Y] * size[Loop.OUT_X] * work.output_bits, 8)

    def partial_bytes(self, step):
        if O not in self.machine.streamed:
            return 0
        size = {loop: piece[1] for loop, piece in step.items()}
        results = size[Loop.BATCH] * size[Loop.GROUPS] * size[Loop.OUT_CHANNELS] * size[Loop.OUT_Y] * size[Loop.OUT_X]
        return ceil(results * self.machine.accumulator_bits, 8)

    def cycles(self, step):
        total = 1
        for loop in TILED:
            total *= ceil(step[loop][1], self.machine.unrolled(loop))
        total *= ceil(self.work.y.kernel, self.machine.unrolled(Loop.KERNEL_Y))
        return total * ceil(self.work.x.kernel, self.machine.unrolled(Loop.KERNEL_X))
