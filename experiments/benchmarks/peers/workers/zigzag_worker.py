"""ZigZag: the fewest cycles that it finds for each layer of an ONNX file on a described machine."""

from __future__ import annotations

import json
import logging
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from zigzag.api import get_hardware_performance_zigzag


def main() -> None:
    """Reads a request (JSON: file, hardware, mapping, folder), writes an answer (JSON: cycles, layers, wall_s)."""
    request = json.loads(Path(sys.argv[1]).read_text())
    logging.disable(logging.CRITICAL)
    start = time.perf_counter()
    _, cycles, evaluations = get_hardware_performance_zigzag(
        request["file"],
        request["hardware"],
        request["mapping"],
        opt="latency",
        dump_folder=request["folder"],
        loma_show_progress_bar=False,
    )
    answer = {
        "version": metadata.version("zigzag-dse"),
        "cycles": cycles,
        "wall_s": time.perf_counter() - start,
        "layers": [_layer(evaluation) for evaluation, _ in evaluations[0][1]],
    }
    Path(sys.argv[2]).write_text(json.dumps(answer, indent=1))


def _layer(evaluation: Any) -> dict[str, Any]:
    layer = evaluation.layer
    return {
        "name": layer.name,
        "loops": {str(loop): size for loop, size in layer.layer_dim_sizes.data.items()},
        "cycles": evaluation.latency_total2,
        "computing": evaluation.ideal_temporal_cycle,
        "stalled": evaluation.stall_slack_comb,
        "onloading": evaluation.data_onloading_cycle,
        "offloading": evaluation.data_offloading_cycle,
        "draining": evaluation.systolic_drain_cycle,
    }


if __name__ == "__main__":
    main()
