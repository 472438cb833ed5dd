"""The link over which the memory beside the engines is filled bounds what lies behind it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bitwright.hw_constraints.cost.estimate import estimate
from bitwright.hw_constraints.explore_axes import Axis
from bitwright.hw_constraints.lower.hardware import hardware_of
from bitwright.hw_constraints.lower.lowering import lower
from bitwright.hw_constraints.quantity import Dimension, parse_quantity
from bitwright.hw_constraints.target import load_target
from bitwright.hw_constraints.target_source import Figure
from bitwright.hw_constraints.target_types import Target
from bitwright.hw_constraints.testing import GraphBuilder
from bitwright.quant.graph import Graph


def with_link(target: Target, bandwidth: str) -> Target:
    """The target with a bandwidth for its only link."""
    ((name, link),) = target.links.items()
    figure = Figure(quantity=parse_quantity(bandwidth, Dimension.BANDWIDTH), source=link.source, verified=True)
    return replace(target, links={name: replace(link, figures={"bandwidth": figure})})


def wide_linear() -> Graph:
    """Weights of 4 MiB that are used once."""
    net = GraphBuilder()
    return net.graph(net.call("linear", net.input(1, 2048), net.parameter(2048, 2048), None, shape=(1, 2048)))


@pytest.mark.parametrize(("link", "wanted"), [("1 GB/s", 1e9), ("5 GB/s", 5e9), ("500 GB/s", 19.2e9)])
def test_the_narrower_of_link_and_memory_counts(link: str, wanted: float) -> None:
    target = load_target("amd-dpu")
    assert target.memories["dram"].bytes_per_second(1.0) == 19.2e9
    assert hardware_of(with_link(target, link)).behind.bytes_per_second(1.0) == wanted


def test_a_memory_that_an_engine_reads_itself_is_not_behind_a_link() -> None:
    target = load_target("amd-dpu")
    engines = {
        name: replace(engine, reads=(*engine.reads, "dram")) if engine.reads else engine
        for name, engine in target.engines.items()
    }
    direct = replace(with_link(target, "1 GB/s"), engines=engines)
    assert hardware_of(direct).behind.bytes_per_second(1.0) == 19.2e9


def test_a_layer_that_waits_for_its_weights_takes_as_long_as_the_link() -> None:
    for speed in (250e6, 500e6, 1000e6):
        target = with_link(load_target("edge-tpu"), f"{speed / 1e6:g} MB/s")
        (layer,) = estimate(lower(wide_linear(), target)).layers
        moved = layer.traffic["host_dram"].total
        assert moved >= 2048 * 2048
        assert layer.us == pytest.approx(moved / speed * 1e6)
        assert layer.bound_by == "host_dram"


def test_a_links_bandwidth_can_be_varied() -> None:
    axis = Axis.parse("pcie.bandwidth=500MB/s..2GB/s", load_target("edge-tpu"))
    times = [estimate(lower(wide_linear(), setting.target)).us for setting in axis.settings]
    assert len(times) == 3 and times == pytest.approx([times[0], times[0] / 2, times[0] / 4])
