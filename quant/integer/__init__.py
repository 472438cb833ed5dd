"""What an integer-only accelerator computes, in NumPy: the reference for simulations, runtimes and devices.

Codes go in and codes come out; in between are int32 accumulators and one of the roundings that devices use
(`requantize.Rounding`). `FLOAT32` is ONNX Runtime's arithmetic on the CPU, bit for bit.
"""
