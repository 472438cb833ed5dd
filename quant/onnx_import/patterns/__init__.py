"""Patterns: what ONNX writes as several operators and ATen as one; each file knows one family."""
