"""TODO."""

if __name__ != "bitwright.quant":
    raise ImportError(
        "import bitwright.quant, not quant: from the checkout's root the same files would become other classes"
    )
