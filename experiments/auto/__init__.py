"""`bitwright quantize --auto`: methods of quantization in order of what they cost, until the accuracy gate holds."""
