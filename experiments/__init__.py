"""TODO."""

if __name__ != "bitwright.experiments":
    raise ImportError(
        "import bitwright.experiments, not experiments: from the checkout's root the same files would become other classes"
    )
