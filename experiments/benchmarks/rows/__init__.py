"""The rows: one file each, `run(bench) -> list[Record]`; its docstring is the question that it answers."""
