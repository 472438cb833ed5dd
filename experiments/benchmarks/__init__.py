"""Benchmarks: one command a row, ours and the peers side by side in one run.

`python -m bitwright.experiments.benchmarks ROW` runs a row of `rows/`, prints its table and writes its records to
`results/ROW.json`; RESULTS.md at the root of the checkout is generated from those. Peers live in environments of their
own (`setup_peers`) and are never dependencies of the product.
"""
