"""Writes an LSTM or GRU, or its cell, as steps, so that its products are layers like others (torch.nn's equations).

    LSTM    i, f, g, o = W_x x_t + b_x + W_h h + b_h,   c' = σ(f) c + σ(i) tanh(g),   h' = σ(o) tanh(c')
    GRU     r = σ(W_xr x_t + b_xr + W_hr h + b_hr),     z likewise,
            n = tanh(W_xn x_t + b_xn + r (W_hn h + b_hn)),   h' = (1 - z) n + z h

The products with the inputs are one layer for all steps; those with the states are one layer a step, all with the same
weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch.fx

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.passes.fold_constants import fold_constants
from bitwright.quant.rewrite import Editor, Refused, arguments, aten, is_call, shape_of

MOST_STEPS = 128  # of all layers and directions: beyond, the graph is no longer one that people look at
_GATES = {"lstm": 4, "gru": 3}


def write_out_recurrence(captured: CapturedModel, at: str) -> CapturedModel | Refused:
    """Rewrites the `lstm`, `gru`, `lstm_cell` or `gru_cell` at `at`; exact."""
    edit = Editor(captured, at)
    kind, given = operator_type(edit.at), arguments(edit.at)
    if not is_call(edit.at, *_GATES, *(f"{layer}_cell" for layer in _GATES)):
        return Refused(f"{kind} is no recurrent layer")
    if kind.endswith("_cell"):
        _Writer(edit, kind.removesuffix("_cell"), given, axis=0).write_cell()
        return edit.finish()
    if "batch_sizes" in given:
        return Refused("its sequences are packed, each of a length of its own")
    if given["train"] and given["dropout"]:
        return Refused("it drops values at random")
    directions = 2 if given["bidirectional"] else 1
    each = 4 if given["has_biases"] else 2
    if len(given["params"]) != each * directions * given["num_layers"]:
        return Refused("it projects its states")
    shape, axis = shape_of(given["input"]), 1 if given["batch_first"] else 0
    if shape is None:
        return Refused("its input has no fixed shape")
    steps = shape[axis] * directions * given["num_layers"]
    if steps > MOST_STEPS:
        return Refused(f"it takes {steps} steps; up to {MOST_STEPS} are written out")
    _Writer(edit, kind, given, axis).write(directions, each)
    return fold_constants(edit.finish())


@dataclass
class _Writer:
    """What the steps share.

    Attributes:
        edit: the rewrite.
        kind: `lstm` or `gru`.
        given: arguments of the layer.
        axis: of time.
    """

    edit: Editor
    kind: str
    given: dict[str, Any]
    axis: int

    def write_cell(self) -> None:
        """One step."""
        cell = self.edit.at
        state = self.given["hx"] if self.kind == "lstm" else [self.given["hx"]]
        x = self._call("linear.default", self.given["input"], self.given["w_ih"], self.given["b_ih"])
        h = self._call("linear.default", state[0], self.given["w_hh"], self.given["b_hh"])
        if self.kind == "gru":
            self.edit.replace(cell, self._gru(x, h, state[0])[0])
            return
        after = self._lstm(x, h, state[1])
        for user in list(cell.users):
            index: Any = user.args[1]
            self.edit.replace(user, after[index])

    def write(self, directions: int, each: int) -> None:
        """All layers and directions."""
        layer, found, last = self.edit.at, self.given["input"], []
        for place, direction in product(range(self.given["num_layers"]), range(directions)):
            number = place * directions + direction
            parameters = self.given["params"][each * number : each * (number + 1)]
            if direction == 0:
                read, passes = found, []
            states, final = self._pass(read, number, parameters, backwards=direction == 1)
            passes.append(self._call("stack.default", states, self.axis))
            last.append(final)
            found = passes[0] if len(passes) == 1 else self._call("cat.default", passes, 2)
        for user in list(layer.users):  # each picks one of the results: all states, or a part of the last ones
            index: Any = user.args[1]
            lasting = [final[index - 1] for final in last]
            self.edit.replace(user, found if index == 0 else self._call("stack.default", lasting, 0))

    def _pass(
        self, read: torch.fx.Node, number: int, parameters: Sequence[torch.fx.Node], *, backwards: bool
    ) -> tuple[list[torch.fx.Node], tuple[torch.fx.Node, ...]]:
        """One layer in one direction: its states in the order of time, and the last one's parts."""
        hx = self.given["hx"]
        state = tuple(self._call("select.int", part, 0, number) for part in (hx if self.kind == "lstm" else [hx]))
        onto_input, onto_state, *biases = parameters
        x = self._call("linear.default", read, onto_input, *biases[:1])
        shape = shape_of(read)
        assert shape is not None  # the input's is known
        times = range(shape[self.axis])
        states = []
        for time in reversed(times) if backwards else times:
            now = self._call("select.int", x, self.axis, time)
            before = self._call("linear.default", state[0], onto_state, *biases[1:])
            state = self._lstm(now, before, state[1]) if self.kind == "lstm" else self._gru(now, before, state[0])
            states.append(state[0])
        return (states[::-1] if backwards else states), state

    def _lstm(self, x: torch.fx.Node, h: torch.fx.Node, cell: torch.fx.Node) -> tuple[torch.fx.Node, ...]:
        write, forget, new, out = self._gates(self._call("add.Tensor", x, h))
        kept = self._call("mul.Tensor", self._call("sigmoid.default", forget), cell)
        added = self._call("mul.Tensor", self._call("sigmoid.default", write), self._call("tanh.default", new))
        cell = self._call("add.Tensor", kept, added)
        shown = self._call("mul.Tensor", self._call("sigmoid.default", out), self._call("tanh.default", cell))
        return shown, cell

    def _gru(self, x: torch.fx.Node, h: torch.fx.Node, state: torch.fx.Node) -> tuple[torch.fx.Node, ...]:
        (x_r, x_z, x_n), (h_r, h_z, h_n) = self._gates(x), self._gates(h)
        reset, keep = (
            self._call("sigmoid.default", self._call("add.Tensor", a, b)) for a, b in ((x_r, h_r), (x_z, h_z))
        )
        seen = self._call("mul.Tensor", reset, h_n)
        new = self._call("tanh.default", self._call("add.Tensor", x_n, seen))
        moved = self._call("mul.Tensor", keep, self._call("sub.Tensor", state, new))
        return (self._call("add.Tensor", new, moved),)

    def _gates(self, together: torch.fx.Node) -> list[torch.fx.Node]:
        count = _GATES[self.kind]
        parts = self._call("split.Tensor", together, together.meta["val"].shape[-1] // count, -1)
        return [self.edit.part(parts, index) for index in range(count)]

    def _call(self, name: str, *args: Any) -> torch.fx.Node:
        operator, overload = name.split(".")
        return self.edit.call(getattr(getattr(aten, operator), overload), *args)
