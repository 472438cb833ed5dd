"""TODO."""
if __name__ != "bitwright.hw_constraints":
    raise ImportError("import bitwright.hw_constraints, not hw_constraints: from the checkout's root the same files would become other classes")
