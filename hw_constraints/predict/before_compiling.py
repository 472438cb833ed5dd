"""The question before anything is calibrated, exported or compiled: a float graph, a plan, a table; will int8 gain?"""

from __future__ import annotations

from bitwright.hw_constraints.predict.int8_gain import Int8Gain, int8_gain
from bitwright.hw_constraints.predict.planned_model import float_model, planned_model
from bitwright.hw_constraints.predict.predictor import LatencyPredictor
from bitwright.quant.graph import Graph
from bitwright.quant.plan import QuantPlan


def gain_of_graph(predictor: LatencyPredictor, graph: Graph, plan: QuantPlan) -> Int8Gain:
    """Compares a network in float with what a plan would make of it.

    Args:
        predictor: of the runtime and device in question.
        graph: captured or read from a file, batch norms folded.
        plan: what would be quantized.

    Raises:
        InputError: an operator has no translation to ONNX, a shape is not static, or a format is none of 8 bits.
    """
    in_float = predictor.split(float_model(graph))
    return int8_gain(predictor, in_float, predictor.split(planned_model(graph, plan)))
