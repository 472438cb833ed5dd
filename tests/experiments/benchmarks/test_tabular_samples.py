"""Which networks of a table are looked at for real, and that their files are the int8 networks that it means."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from bitwright.experiments.benchmarks.tabular_landscapes import landscape
from bitwright.experiments.benchmarks.tabular_networks import NARROW
from bitwright.experiments.benchmarks.tabular_samples import Sample, spread_over
from bitwright.nas.declared_space import DeclaredSpace
from bitwright.nas.result import Outcome, Result
from bitwright.nas.space import Parameter
from bitwright.nas.supernet import SupernetSettings


def test_a_sample_is_spread_over_the_ranks_of_what_is_feasible() -> None:
    table = landscape(1, sizes=(3, 3, 2, 2))
    scored = sorted(each.figures["accuracy"] for each in table.results.values() if each.outcome is Outcome.SCORED)
    assert len(scored) < len(table.results)
    found = [each.figures["accuracy"] for each in spread_over(table, "accuracy", 5)]
    wanted = np.linspace(0, len(scored) - 1, 5).round().astype(int)
    assert found == [scored[place] for place in wanted]


def one_network() -> DeclaredSpace:
    choices = {
        f"{name}_{stage}": (size,) for stage in range(3) for name, size in (("width", 4), ("kernel", 3), ("depth", 1))
    }
    return DeclaredSpace(own=tuple(Parameter(name=name, choices=each, ordered=True) for name, each in choices.items()))


def test_its_file_is_the_network_in_int8(tmp_path: Path) -> None:
    networks = replace(NARROW, space=one_network())
    sample = Sample(networks=networks, alone=SupernetSettings(epochs=1), folder=tmp_path)
    (candidate,) = networks.candidates
    result = Result(key=candidate.key, values=dict(candidate.values), outcome=Outcome.SCORED, stage="table")
    nodes = [node.op_type for node in onnx.load(sample.int8_file(result)).graph.node]
    assert nodes.count("Conv") == 3 and nodes.count("QuantizeLinear") > 3
    sample.int8_file(result).write_bytes(b"kept")
    assert sample.int8_file(result).read_bytes() == b"kept"
