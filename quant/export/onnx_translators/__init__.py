"""ATen operators in ONNX: one small function for each family, one file for each kind.

Importing this package fills `TRANSLATORS`.
"""

from bitwright.quant.export.onnx_translators import arithmetic, images, layers, pooling, recurrent, shapes
from bitwright.quant.export.onnx_translators.registry import TRANSLATORS

__all__ = ["TRANSLATORS", "arithmetic", "images", "layers", "pooling", "recurrent", "shapes"]
