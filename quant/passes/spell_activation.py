"""Spells an activation with more common operators: by its definition, or by a cheap function that lies close to it.

| form | of | with |
|---|---|---|
| relu6 | hardswish, hardsigmoid | `x min(max(x + 3, 0), 6) / 6` (Howard et al. 2019, eq. 1) |
| sigmoid | silu | `x sigmoid(x)` |
| tanh | mish | `x tanh(softplus(x))` |
| sigmoid | gelu | `x sigmoid(1.702 x)`, an approximation (Hendrycks and Gimpel 2016, section 2) |
| hardswish | silu | an approximation (Howard et al. 2019, section 5.2) |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.fx

from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.fx_nodes import operator_type
from bitwright.quant.rewrite import Editor, Refused, aten

_GELU_SLOPE = 1.702


def spell_activation(captured: CapturedModel, at: str, *, form: str) -> CapturedModel | Refused:
    """Replaces the activation at `at` by one of its forms.

    Args:
        captured: the network.
        at: the activation's node.
        form: the name of the form.
    """
    edit = Editor(captured, at)
    operator = operator_type(edit.at)
    write = _FORMS.get((operator, form))
    if write is None:
        known = ", ".join(name for of, name in _FORMS if of == operator)
        return Refused(f"{operator} has no form {form!r}; it has: {known or 'none'}")
    edit.replace(edit.at, write(edit, edit.at.args[0]))
    return edit.finish()


def _clipped(edit: Editor, x: Any) -> torch.fx.Node:
    return edit.call(aten.hardtanh.default, edit.call(aten.add.Tensor, x, 3.0), 0.0, 6.0)


def _hardswish(edit: Editor, x: Any) -> torch.fx.Node:
    return edit.call(aten.mul.Tensor, edit.call(aten.mul.Tensor, x, _clipped(edit, x)), 1 / 6)


def _hardsigmoid(edit: Editor, x: Any) -> torch.fx.Node:
    return edit.call(aten.mul.Tensor, _clipped(edit, x), 1 / 6)


def _silu(edit: Editor, x: Any) -> torch.fx.Node:
    return edit.call(aten.mul.Tensor, x, edit.call(aten.sigmoid.default, x))


def _mish(edit: Editor, x: Any) -> torch.fx.Node:
    return edit.call(aten.mul.Tensor, x, edit.call(aten.tanh.default, edit.call(aten.softplus.default, x)))


def _gelu(edit: Editor, x: Any) -> torch.fx.Node:
    steep = edit.call(aten.mul.Tensor, x, _GELU_SLOPE)
    return edit.call(aten.mul.Tensor, x, edit.call(aten.sigmoid.default, steep))


def _as_hardswish(edit: Editor, x: Any) -> torch.fx.Node:
    return edit.call(aten.hardswish.default, x)


_FORMS: dict[tuple[str, str], Callable[[Editor, Any], torch.fx.Node]] = {
    ("hardswish", "relu6"): _hardswish,
    ("hardsigmoid", "relu6"): _hardsigmoid,
    ("silu", "sigmoid"): _silu,
    ("mish", "tanh"): _mish,
    ("gelu", "sigmoid"): _gelu,
    ("silu", "hardswish"): _as_hardswish,
}
