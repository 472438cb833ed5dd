"""One small translator for each family of operators: the graph's operator in TensorFlow Lite's words."""

from bitwright.quant.export.tflite_translators import activations, arithmetic, layers, pooling, shapes
from bitwright.quant.export.tflite_translators.registry import TRANSLATORS

__all__ = ["TRANSLATORS", "activations", "arithmetic", "layers", "pooling", "shapes"]
