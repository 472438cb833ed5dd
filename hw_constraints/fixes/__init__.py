"""Fixes of findings, one a file: which rule's finding, which rewrite of `quant.passes`, and what to write by hand."""
