"""Latency before anything is compiled or run: predicted from a table of measured kernels, with intervals."""
