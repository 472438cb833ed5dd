"""Readers of ONNX operators, one family a file; see `registry`."""
