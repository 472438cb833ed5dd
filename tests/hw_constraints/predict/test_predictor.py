from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up_machine import KEY, kernel_us, network_us, networks, splits, table

from bitwright.hw_constraints.kernels import Family, Kernel, Split, split
from bitwright.hw_constraints.kernels.known_rules import known_rules
from bitwright.hw_constraints.predict.from_table import FUSION_RULES, load_predictor, predictor_of
from bitwright.hw_constraints.predict.kernel_models import samples_of
from bitwright.hw_constraints.predict.predictor import LatencyPredictor
from bitwright.hw_constraints.table import KernelTable
from bitwright.hw_constraints.table.key import TableKey
from bitwright.hw_constraints.table.reference import REFERENCE
from bitwright.quant.errors import InputError

NEW = 12  # networks of another draw


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@pytest.fixture(scope="module")
def predictor(tables: Path) -> LatencyPredictor:
    return predictor_of(table(tables / "made-up.table"))


def _kernels(network: Split) -> list[Kernel]:
    return [placed.kernel for placed in network.kernels]


def test_networks_of_another_draw_are_predicted(predictor: LatencyPredictor) -> None:
    errors, covered = [], []
    for network in splits(NEW, seed=7).values():
        found, truth = predictor.network(network), network_us(_kernels(network))
        errors.append(abs(math.log(found.us / truth)))
        covered.append(found.low <= truth <= found.high)
    assert np.median(errors) < 0.02
    assert np.quantile(errors, 0.9) < 0.06
    assert np.mean(covered) >= 0.85


def test_a_network_is_its_kernels_and_what_lies_between(predictor: LatencyPredictor) -> None:
    found = predictor.network(next(iter(splits(NEW, seed=7).values())))
    assert sum(layer.us for layer in found.layers) + sum(found.overheads.values()) == pytest.approx(found.us)


def test_a_measured_kernel_is_looked_up(predictor: LatencyPredictor) -> None:
    kernel = _kernels(next(iter(splits(20).values())))[0]
    us, spread = predictor.kernel(kernel)
    assert us == pytest.approx(kernel_us(kernel), rel=0.05)
    assert spread == pytest.approx(0.01, abs=0.002)


def test_queries_and_networks_take_as_long_as_promised(predictor: LatencyPredictor) -> None:
    network = max(splits(NEW, seed=7).values(), key=lambda each: len(each.kernels))
    kernel = next(each for each in _kernels(network) if each.macs)
    predictor.network(network), predictor.kernel(kernel)  # whatever is imported late
    start = time.perf_counter()
    predictor.network(network)
    assert time.perf_counter() - start < 0.02 * 5  # of a machine that others use, too
    start = time.perf_counter()
    predictor.kernel(kernel)
    assert time.perf_counter() - start < 0.001 * 5


def _conv(channels: int, side: int) -> Kernel:
    shape = (1, channels, side, side)
    sides = (("dilations", (1, 1)), ("group", 1), ("kernel_shape", (3, 3)))
    return Kernel(
        family=Family.CONV,
        op="Conv",
        format="float32",
        inputs=(shape,),
        outputs=(shape,),
        weight=(channels, channels, 3, 3),
        attributes=(*sides, ("pads", (1,) * 4), ("strides", (1, 1))),
        layout="blocked",
    )


def test_what_lies_outside_is_said_and_the_interval_widens(predictor: LatencyPredictor) -> None:
    found = predictor.models.predict([_conv(64, 28), _conv(4096, 300)])
    assert found.outside[0] == ()
    assert "channels out 4096, measured up to" in "; ".join(found.outside[1])
    assert found.spread[1] > 2 * found.spread[0]


def test_a_family_that_was_never_measured_is_called_that(predictor: LatencyPredictor) -> None:
    kernel = Kernel(family=Family.OTHER, op="Einsum", format="float32", inputs=((1, 8),), outputs=((1, 8),))
    found = predictor.models.predict([kernel])
    assert found.outside[0] == ("no other kernel in float32 was measured",)
    assert found.spread[0] > 1


def test_what_was_learned_is_kept_beside_the_table(tables: Path, predictor: LatencyPredictor) -> None:
    start = time.perf_counter()
    again = load_predictor(tables / "made-up.table")
    assert time.perf_counter() - start < 5
    network = next(iter(splits(NEW, seed=7).values()))
    assert again.network(network).us == pytest.approx(predictor.network(network).us, rel=1e-6)
    assert again.intervals == predictor.intervals
    kept = tables / "made-up.table.predictor.json"
    kept.write_text("{")
    assert load_predictor(tables / "made-up.table").intervals.factor == pytest.approx(predictor.intervals.factor)


def test_another_runtimes_network_is_refused(predictor: LatencyPredictor) -> None:
    with pytest.raises(InputError, match="the network was split for 'openvino'; the table is of 'onnxruntime'"):
        predictor.network(Split(runtime="openvino", kernels=(), inputs=(), outputs=()))


def test_an_empty_table_is_refused(tables: Path) -> None:
    with KernelTable.writing(tables / "empty.table", KEY, {}) as writing:
        writing.add()
    with pytest.raises(InputError, match="no measured kernel; fill it first: bitwright measure kernels"):
        load_predictor(tables / "empty.table")


def test_a_table_of_another_machine_is_refused(tables: Path, predictor: LatencyPredictor) -> None:
    other = TableKey(**{**vars(KEY), "version": "2.0"})
    with pytest.raises(InputError, match=r"made-up\.table.*version 1\.0, here 2\.0"):
        load_predictor(tables / "made-up.table", key=other)


@pytest.mark.slow
def test_what_fuses_is_as_the_table_says(tmp_path: Path) -> None:
    with_facts = table(tmp_path / "facts.table")
    assert predictor_of(with_facts).rules == known_rules("onnxruntime")
    alone = replace(known_rules("onnxruntime"), version="0.9", epilogues={})
    with KernelTable.writing(with_facts.path, with_facts.key, with_facts.reference) as writing:
        writing.add(facts={FUSION_RULES: alone.to_json()})
    predictor = load_predictor(with_facts.path)
    network = networks(1)[0].float_file()
    assert predictor.rules == alone
    assert len(predictor.split(network).kernels) > len(split(network, "onnxruntime").kernels)


def test_rows_that_may_take_no_time_teach_nothing(tables: Path) -> None:
    """A latency below 0 has no logarithm, and the least one that could stand for it is made up."""
    file = tables / "drowned.table"
    known = table(file, count=4)
    drowned = [replace(row, ratio=-row.ratio, low=-2 * row.ratio, high=row.ratio) for row in known.measured[::5]]
    with KernelTable.writing(file, known.key, REFERENCE.to_json()) as writing:
        writing.add(drowned)
    samples = samples_of(KernelTable.load(file))
    assert {sample.kernel for sample in samples} == {row.kernel for row in known.measured} - {
        row.kernel for row in drowned
    }
