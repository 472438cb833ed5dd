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
from typing import Any

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.passes.fold_constants import fold_constants
from bitwright.quant.rewrite import Editor, Operators, Refused, arguments, aten, is_call, shape_of

MOST_STEPS = 128  # of all layers and directions: beyond, the graph is no longer one that people look at
_GATES = {"lstm": 4, "gru": 3}


def write_out_recurrence(captured: CapturedModel, at: str) -> CapturedModel | Refused:
    """Rewrites the `lstm`, `gru`, `lstm_cell` or `gru_cell` at `at`; exact."""
    edit = Editor(captured, at)
    kind, given = operator_type(edit.at), arguments(edit.at)
    if not is_call(edit.at, *_GATES, *(f"{layer}_cell" for layer in _GATES)):
        return Refused(f"{kind} is no recurrent layer")
    if kind == "gru_cell":
        edit.replace(edit.at, cell_results(edit, kind, given)[0])
        return edit.finish()
    if kind == "lstm_cell":
        results = cell_results(edit, kind, given)
    elif (refused := _why_not(given)) is not None:
        return refused
    else:
        results = layer_results(edit, kind, given)
    for user in list(edit.at.users):  # each picks one of the results
        index: Any = user.args[1]
        edit.replace(user, results[index])
    return edit.finish() if kind == "lstm_cell" else fold_constants(edit.finish())


def _why_not(given: dict[str, Any]) -> Refused | None:
    """What a layer does that no fixed number of steps can say."""
    if "batch_sizes" in given:
        return Refused("its sequences are packed, each of a length of its own")
    if given["train"] and given["dropout"]:
        return Refused("it drops values at random")
    directions = 2 if given["bidirectional"] else 1
    if len(given["params"]) != _each(given) * directions * given["num_layers"]:
        return Refused("it projects its states")
    shape = shape_of(given["input"])
    if shape is None:
        return Refused("its input has no fixed shape")
    steps = shape[time_axis(given)] * directions * given["num_layers"]
    if steps > MOST_STEPS:
        return Refused(f"it takes {steps} steps; up to {MOST_STEPS} are written out")
    return None


def time_axis(given: dict[str, Any]) -> int:
    """The axis of a layer's input that is time."""
    return 1 if given["batch_first"] else 0


def cell_results(operators: Operators, kind: str, given: dict[str, Any]) -> tuple[Any, ...]:
    """The state after one step of a cell, operator by operator.

    Args:
        operators: who computes them.
        kind: `lstm_cell` or `gru_cell`.
        given: arguments by their names in ATen's schema.
    """
    step = _Steps(operators, kind.removesuffix("_cell"), given)
    state = given["hx"] if step.kind == "lstm" else [given["hx"]]
    x = step.call("linear.default", given["input"], given["w_ih"], given["b_ih"])
    h = step.call("linear.default", state[0], given["w_hh"], given["b_hh"])
    return step.after(x, h, state)


def layer_results(operators: Operators, kind: str, given: dict[str, Any]) -> tuple[Any, ...]:
    """All states of a layer and the parts of its last ones, operator by operator.

    Args:
        operators: who computes them.
        kind: `lstm` or `gru`.
        given: arguments by their names in ATen's schema.
    """
    return _Steps(operators, kind, given).results()


def _each(given: dict[str, Any]) -> int:
    """Parameters of a layer in one direction."""
    return 4 if given["has_biases"] else 2


@dataclass
class _Steps:
    """What the steps share.

    Attributes:
        operators: who computes them.
        kind: `lstm` or `gru`.
        given: arguments of the layer.
    """

    operators: Operators
    kind: str
    given: dict[str, Any]

    def results(self) -> tuple[Any, ...]:
        """All layers and directions."""
        given, read, last = self.given, self.given["input"], []
        directions, each = 2 if given["bidirectional"] else 1, _each(given)
        for layer in range(given["num_layers"]):
            passes = []
            for direction in range(directions):
                number = layer * directions + direction
                parameters = given["params"][each * number : each * (number + 1)]
                states, final = self._pass(read, number, parameters, backwards=direction == 1)
                passes.append(self.call("stack.default", states, time_axis(given)))
                last.append(final)
            read = passes[0] if len(passes) == 1 else self.call("cat.default", passes, 2)
            if given["dropout"] and given["train"] and layer + 1 < given["num_layers"]:
                read = self.call("dropout.default", read, given["dropout"], True)
        return (read, *(self.call("stack.default", list(parts), 0) for parts in zip(*last, strict=True)))

    def _pass(
        self, read: Any, number: int, parameters: Sequence[Any], *, backwards: bool
    ) -> tuple[list[Any], tuple[Any, ...]]:
        """One layer in one direction: its states in the order of time, and the last one's parts."""
        hx, axis = self.given["hx"], time_axis(self.given)
        state = tuple(self.call("select.int", part, 0, number) for part in (hx if self.kind == "lstm" else [hx]))
        onto_input, onto_state, *biases = parameters
        x = self.call("linear.default", read, onto_input, *biases[:1])
        times = range(self.operators.shape(read)[axis])
        states = []
        for time in reversed(times) if backwards else times:
            now = self.call("select.int", x, axis, time)
            before = self.call("linear.default", state[0], onto_state, *biases[1:])
            state = self.after(now, before, state)
            states.append(state[0])
        return (states[::-1] if backwards else states), state

    def after(self, x: Any, h: Any, state: Sequence[Any]) -> tuple[Any, ...]:
        """The state after a step, from the products with its input and with the state before."""
        return self._lstm(x, h, state[1]) if self.kind == "lstm" else self._gru(x, h, state[0])

    def _lstm(self, x: Any, h: Any, cell: Any) -> tuple[Any, ...]:
        write, forget, new, out = self._gates(self.call("add.Tensor", x, h))
        kept = self.call("mul.Tensor", self.call("sigmoid.default", forget), cell)
        added = self.call("mul.Tensor", self.call("sigmoid.default", write), self.call("tanh.default", new))
        cell = self.call("add.Tensor", kept, added)
        shown = self.call("mul.Tensor", self.call("sigmoid.default", out), self.call("tanh.default", cell))
        return shown, cell

    def _gru(self, x: Any, h: Any, state: Any) -> tuple[Any, ...]:
        (x_r, x_z, x_n), (h_r, h_z, h_n) = self._gates(x), self._gates(h)
        reset, keep = (self.call("sigmoid.default", self.call("add.Tensor", a, b)) for a, b in ((x_r, h_r), (x_z, h_z)))
        seen = self.call("mul.Tensor", reset, h_n)
        new = self.call("tanh.default", self.call("add.Tensor", x_n, seen))
        moved = self.call("mul.Tensor", keep, self.call("sub.Tensor", state, new))
        return (self.call("add.Tensor", new, moved),)

    def _gates(self, together: Any) -> list[Any]:
        count = _GATES[self.kind]
        parts = self.call("split.Tensor", together, self.operators.shape(together)[-1] // count, -1)
        return [self.operators.part(parts, index) for index in range(count)]

    def call(self, name: str, *args: Any) -> Any:
        """The result of an operator, by its name and overload."""
        operator, overload = name.split(".")
        return self.operators.call(getattr(getattr(aten, operator), overload), *args)
