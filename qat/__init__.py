"""TODO."""
if __name__ != "bitwright.qat":
    raise ImportError("import bitwright.qat, not qat: from the checkout's root the same files would become other classes")
