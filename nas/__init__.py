"""TODO."""
if __name__ != "bitwright.nas":
    raise ImportError("import bitwright.nas, not nas: from the checkout's root the same files would become other classes")
