"""Reads ONNX files as graphs; needs onnx and NumPy, no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitwright.quant.lazy import lazy_attributes

if TYPE_CHECKING:
    from bitwright.quant.onnx_import.import_graph import ImportedModel, graph_from_onnx
    from bitwright.quant.onnx_import.qparams import ImportedQParams

__all__ = ["ImportedModel", "ImportedQParams", "graph_from_onnx"]
__getattr__ = lazy_attributes(__name__, __file__)
