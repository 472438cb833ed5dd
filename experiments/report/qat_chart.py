"""Quantization-aware training on the report's page."""

from __future__ import annotations

from markupsafe import Markup

from bitwright.experiments.figure_text import format_value
from bitwright.experiments.qat_result import QATResult
from bitwright.experiments.report.svg import Scale, Svg


def qat_chart(result: QATResult) -> Markup:
    """PTQ and QAT beside the float network, with intervals where they are known."""
    rows = (("float", "float", result.reference), ("PTQ", "ptq", result.ptq), ("QAT", "quantized", result.qat))
    values = [bound for _, _, each in rows for bound in (each.value, each.low, each.high) if bound is not None]
    drawing = Svg(
        760,
        30 * len(rows) + 54,
        name="qat",
        title=f"{result.metric} of the float network, after PTQ, and after QAT",
        description=", ".join(f"{name} {format_value(each.value, each.unit)}" for name, _, each in rows),
    )
    across = Scale(min(0.0, *values), max(*values, 1e-9), 60, 640)
    drawing.axis_below(across, 30 * len(rows) + 14, f"{result.metric}, {result.qat.unit}", top=6)
    for index, (name, kind, figure) in enumerate(rows):
        top = index * 30 + 12
        drawing.text((across.start - 8, top + 15), name, "label", anchor="end")
        drawing.rect((across(0.0), top), across(figure.value) - across(0.0), 22, kind)
        if figure.low is not None and figure.high is not None:
            drawing.line((across(figure.low), top + 11), (across(figure.high), top + 11), "whisker")
        end = max(figure.value, figure.high if figure.high is not None else figure.value)
        drawing.text((across(end) + 8, top + 15), format_value(figure.value, figure.unit), "value")
    return drawing.markup()
