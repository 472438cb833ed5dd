"""Sites, blocks and kinds come from the graph; modules' names play no part."""

from collections import Counter

from bitwright.hw_constraints.autotune.decision import Candidates


def kinds(candidates: Candidates) -> Counter[str]:
    return Counter(site.kind for site in candidates.sites.by_name.values())


def test_each_choice_is_one_site_with_what_hangs_on_it(candidates):
    assert kinds(candidates) == {
        "conv2d 3x3 + relu": 1,
        "conv2d 3x3 depthwise + silu": 1,
        "adaptive_avg_pool2d of a vector": 1,
        "conv2d 1x1 + relu of a vector": 1,
        "conv2d 1x1 of a vector": 1,
        "sigmoid of a vector": 1,
        "mul": 1,
        "conv2d 1x1 + relu": 2,
        "conv2d 1x1": 2,
        "add": 1,
        "add + mean": 1,
        "linear": 1,
    }


def test_a_node_is_in_one_site_at_most_and_every_quantized_node_in_one(candidates):
    sites, plan = candidates.sites, candidates.quantized.plan
    nodes = [node for site in sites.by_name.values() for node in site.nodes]
    assert Counter(nodes) == Counter(plan.quantized - set(sites.followers))


def test_layers_of_repeated_blocks_have_one_signature(candidates):
    signatures = Counter(site.signature for site in candidates.sites.by_name.values() if site.kind == "conv2d 1x1")
    assert list(signatures.values()) == [2]


def test_blocks_are_what_one_arm_has_and_the_other_has_not(candidates):
    sites = candidates.sites.by_name
    found = {tuple(sorted(sites[name].kind for name in block)) for block in candidates.sites.blocks}
    gate = ("adaptive_avg_pool2d of a vector", "conv2d 1x1 + relu of a vector", "conv2d 1x1 of a vector", "mul")
    assert tuple(sorted((*gate, "sigmoid of a vector"))) in found
    assert ("add", "conv2d 1x1", "conv2d 1x1 + relu") in found


def test_edges_tell_straight_flows_from_those_through_float_operators(candidates):
    sites = candidates.sites
    kind = {name: site.kind for name, site in sites.by_name.items()}
    straight = {(kind[a], kind[b]) for a, b in sites.edges}
    through = {(kind[a], kind[b]): count for (a, b), count in sites.float_edges.items()}
    assert ("conv2d 3x3 + relu", "conv2d 3x3 depthwise + silu") in straight
    assert through[("conv2d 3x3 depthwise + silu", "mul")] == 8 * 8 * 8  # SiLU stands between them
    assert ("conv2d 3x3 depthwise + silu", "mul") not in straight
