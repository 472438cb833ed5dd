"""The driving-style networks: each runs, and is captured whole or in pieces, with the user's own lines."""

import pytest
import torch

from bitwright.experiments.benchmarks import driving
from bitwright.quant.regions import Regions, find_regions

# They hold what stands in the way of one graph in the field; the others are captured whole.
IN_PIECES = (
    "action_chunking",
    "conditional_planner",
    "deformable_detr",
    "gru_tracker",
    "lstm_behaviour",
    "moe_planner",
    "motion_forecast",
    "point_pillars",
    "query_detector",
    "raft_flow",
    "traffic_light_rois",
    "yolo_nms",
)


_LARGE = {
    *(
        "action_chunking",
        "deformable_detr",
        "diffusion_planner",
        "moe_planner",
        "motion_forecast",
        "stereo_cost_volume",
    ),
    *("stream_petr", "swin_segmenter", "trans_fusion", "voxel_net"),
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow) if name in _LARGE else name for name in driving.names()],
)
def case(request: pytest.FixtureRequest) -> tuple[driving.DrivingNetwork, Regions]:
    torch.set_num_threads(1)
    network = driving.load(request.param)
    return network, find_regions(network.model, network.args)


def test_there_are_enough() -> None:
    assert len(driving.names()) >= 20
    assert set(IN_PIECES) <= set(driving.names())


def test_whole_or_in_pieces(case: tuple[driving.DrivingNetwork, Regions]) -> None:
    network, found = case
    assert found.is_whole is (network.name not in IN_PIECES)
    assert found.total.macs > 0


def test_regions_compute_what_their_modules_do(case: tuple[driving.DrivingNetwork, Regions]) -> None:
    network, found = case
    for region in found.regions:
        module = driving.load(network.name).model.get_submodule(region.module_path)
        with torch.no_grad():
            expected = module(*region.args, **region.kwargs)
        torch.testing.assert_close(
            region.captured.run(*region.args, **region.kwargs), expected, rtol=1e-4, atol=1e-4, equal_nan=True
        )


def test_every_line_is_one_of_the_file(case: tuple[driving.DrivingNetwork, Regions]) -> None:
    network, found = case
    lines = network.file.read_text().splitlines()
    nodes = [node.source for region in found.regions for node in region.captured.graph.nodes]
    assert all(nodes)
    for source in (*nodes, *(failure.source for failure in found.failures)):
        assert source is not None
        assert source.file == str(network.file)
        assert lines[source.line - 1].strip() == source.text


@pytest.mark.slow
def test_most_of_what_is_in_pieces_lies_in_regions() -> None:
    shares = {}
    for name in IN_PIECES:
        network = driving.load(name)
        shares[name] = find_regions(network.model, network.args).mac_share
    assert sum(share >= 0.9 for share in shares.values()) >= 8, shares
