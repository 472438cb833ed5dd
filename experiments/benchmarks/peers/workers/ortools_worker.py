"""OR-tools' CP-SAT: the smallest peak of placing buffers, with proof where the time allows."""

from __future__ import annotations

import json
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from ortools.sat.python import cp_model


def main() -> None:
    """Reads a request (JSON: cases, limit_s), writes an answer (JSON: for each case peak, bound, proven, wall_s)."""
    request = json.loads(Path(sys.argv[1]).read_text())
    answers = [smallest_peak(case, request["limit_s"]) for case in request["cases"]]
    answer = {"version": metadata.version("ortools"), "cases": answers}
    Path(sys.argv[2]).write_text(json.dumps(answer, indent=1))


def smallest_peak(buffers: list[dict[str, int]], limit_s: float) -> dict[str, Any]:
    """Rectangles of lifetime × bytes that do not overlap, and a cumulative constraint over the steps."""
    model = cp_model.CpModel()
    top = sum(buffer["size_bytes"] for buffer in buffers)
    peak = model.new_int_var(max(buffer["size_bytes"] for buffer in buffers), top, "peak")
    lives, places = [], []
    for index, buffer in enumerate(buffers):
        size = buffer["size_bytes"]
        offset = model.new_int_var(0, top - size, f"offset{index}")
        lives.append(model.new_fixed_size_interval_var(buffer["first"], buffer["last"] - buffer["first"] + 1, ""))
        places.append(model.new_interval_var(offset, size, offset + size, ""))
        model.add(offset + size <= peak)
    model.add_no_overlap_2d(lives, places)
    model.add_cumulative(lives, [buffer["size_bytes"] for buffer in buffers], peak)
    model.minimize(peak)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = limit_s
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    start = time.perf_counter()
    status = solver.solve(model)
    found = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    return {
        "peak": round(solver.objective_value) if found else None,
        "bound": round(solver.best_objective_bound),
        "proven": status == cp_model.OPTIMAL,
        "wall_s": time.perf_counter() - start,
    }


if __name__ == "__main__":
    main()
