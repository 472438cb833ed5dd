"""SCALE-Sim: the compute cycles of convolutions on a systolic array, from its own cycle-by-cycle demand matrices."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from scalesim.scale_sim import scalesim

# Bandwidth is estimated, not limited, so that no cycle is a stall; sizes of memories then do not matter.
CONFIGURATION = """
[general]
run_name = run
[architecture_presets]
ArrayHeight: {rows}
ArrayWidth: {columns}
IfmapSramSzkB: 6144
FilterSramSzkB: 6144
OfmapSramSzkB: 2048
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Dataflow: {dataflow}
Bandwidth: 10
MemoryBanks: 1
ReadRequestBuffer: 32
WriteRequestBuffer: 32
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport: false
SparseRep: ellpack_block
OptimizedMapping: false
BlockSize: 8
RandomNumberGeneratorSeed: 40
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""
COLUMNS = "Layer, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,"
LAYOUT_FACTORS = 20


def main() -> None:
    """Reads a request (JSON: layers, arrays, folder), writes an answer (JSON: for each array a list of cycles).

    A layer is [input height, input width, kernel height, kernel width, channels, filters, stride], padding in the
    input's size; an array has dataflow (`ws`, `os`, `is`), rows and columns.
    """
    request = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(request["folder"])
    cycles = [_cycles(request["layers"], array, folder / str(place)) for place, array in enumerate(request["arrays"])]
    answer = {"version": metadata.version("scalesim"), "cycles": cycles}
    Path(sys.argv[2]).write_text(json.dumps(answer, indent=1))


def _cycles(layers: list[list[int]], array: dict[str, Any], folder: Path) -> list[int]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.cfg").write_text(CONFIGURATION.format(**array))
    lines = [f"layer{place}, {', '.join(str(size) for size in layer)}," for place, layer in enumerate(layers)]
    (folder / "layers.csv").write_text("\n".join((COLUMNS, *lines)) + "\n")
    layout = [f"layer{place}, {', '.join(['1'] * LAYOUT_FACTORS)}," for place in range(len(layers))]
    (folder / "layout.csv").write_text("\n".join(("Layer," + "factor," * LAYOUT_FACTORS, *layout)) + "\n")
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        simulation = scalesim(
            save_disk_space=True,
            verbose=False,
            config=str(folder / "run.cfg"),
            topology=str(folder / "layers.csv"),
            layout=str(folder / "layout.csv"),
        )
        simulation.run_scale(top_path=str(folder))
    with (folder / "run" / "COMPUTE_REPORT.csv").open(newline="") as report:
        return [int(float(line[" Total Cycles"])) for line in csv.DictReader(report)]


if __name__ == "__main__":
    main()
