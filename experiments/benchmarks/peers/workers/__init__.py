"""Scripts that run with a peer's own interpreter; they import nothing of bitwright.

Each reads a request (JSON, first argument), quantizes the network by the peer's documented route, and writes an
answer (JSON, second argument). They can import each other's neighbours `exchange` and `networks`, since Python puts a
script's folder on its path.
"""
