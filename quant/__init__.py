"""Number formats, schemes, capture, quantization plan, calibration, PTQ and export: the ground floor.

The two functions named like their modules are imported from there: `from bitwright.quant.capture import capture`,
`from bitwright.quant.plan import plan`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if __name__ != "bitwright.quant":
    raise ImportError(
        "import bitwright.quant, not quant: from the checkout's root the same files would become other classes"
    )

from bitwright.quant.lazy import lazy_attributes

if TYPE_CHECKING:
    from bitwright.quant.bias_correction import correct_biases
    from bitwright.quant.capture import CaptureError, CaptureFailure
    from bitwright.quant.captured_model import CapturedModel
    from bitwright.quant.dynamic_qparams import DynamicQParams
    from bitwright.quant.errors import InputError, MissingExtraError
    from bitwright.quant.export.exporter import export_as
    from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq
    from bitwright.quant.formats import FORMATS, FloatFormat, IntFormat, NumberFormat, get_format
    from bitwright.quant.graph import Graph, Node, SourceLine, TensorInfo, TensorKind, TensorRef
    from bitwright.quant.layer_report import TensorReport
    from bitwright.quant.observers.base import Observer, observer_names
    from bitwright.quant.onnx_import.import_graph import ImportedModel, graph_from_onnx
    from bitwright.quant.parity import Inputs, Parity, compare
    from bitwright.quant.plan import BiasPlan, QuantPlan
    from bitwright.quant.ptq import quantize
    from bitwright.quant.qparams import QParams, choose_qparams
    from bitwright.quant.quantized_model import QuantizedModel
    from bitwright.quant.regions import Region, Regions, find_regions
    from bitwright.quant.scheme import BiasKind, Granularity, Override, QParamsSpec, QuantScheme, ScaleKind

__all__ = [
    "FORMATS",
    "BiasKind",
    "BiasPlan",
    "CaptureError",
    "CaptureFailure",
    "CapturedModel",
    "DynamicQParams",
    "FloatFormat",
    "Granularity",
    "Graph",
    "ImportedModel",
    "InputError",
    "Inputs",
    "IntFormat",
    "MissingExtraError",
    "Node",
    "NumberFormat",
    "Observer",
    "Override",
    "Parity",
    "QParams",
    "QParamsSpec",
    "QuantPlan",
    "QuantScheme",
    "QuantizedModel",
    "Region",
    "Regions",
    "ScaleKind",
    "SourceLine",
    "TensorInfo",
    "TensorKind",
    "TensorRef",
    "TensorReport",
    "choose_qparams",
    "compare",
    "correct_biases",
    "export_as",
    "export_float",
    "export_onnx_qdq",
    "find_regions",
    "get_format",
    "graph_from_onnx",
    "observer_names",
    "quantize",
]
__getattr__ = lazy_attributes(__name__, __file__)
