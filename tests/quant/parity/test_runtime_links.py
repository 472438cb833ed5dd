"""ONNX Runtime's levels as links: the same as the simulation on clean files, and faults in the right layer."""

from pathlib import Path
from typing import Any

import onnx
import pytest

from bitwright.hw_constraints.parity_links import LEVELS, OnnxRuntimeLink
from bitwright.quant.parity import LinkError, compare_chain, compare_links
from bitwright.quant.parity.torch_links import CapturedLink, SimulationLink


def test_every_level_computes_the_float_network(chain: Any) -> None:
    links = [CapturedLink(chain.folded), *(OnnxRuntimeLink(chain.float_file, level) for level in LEVELS)]
    found = compare_chain(links, chain.inputs)
    assert found.agrees and all(len(pair.layers) >= 7 for pair in found.pairs)


def test_every_level_computes_the_simulation(chain: Any) -> None:
    links = [SimulationLink(chain.quantized), *(OnnxRuntimeLink(chain.quantized_file, level) for level in LEVELS)]
    found = compare_chain(links, chain.inputs)
    assert found.agrees and all(len(pair.layers) >= 8 for pair in found.pairs)


@pytest.mark.parametrize("level", LEVELS)
def test_a_wrong_scale_is_found_at_every_level(chain: Any, rewrite: Any, level: str) -> None:
    broken = chain.planted(lambda m: rewrite(m, "inner.2@0.0.0/scale", lambda old: old * 1.03))
    found = compare_links(SimulationLink(chain.quantized), OnnxRuntimeLink(broken, level), chain.inputs)
    (fault,) = found.breaks
    assert fault.tensor.name == "inner.2@0.0.0" and fault.own is not None and "scale" in fault.own.error


def test_fused_codes_stay_fused(chain: Any) -> None:
    """What is recorded comes from QLinearConv, not from convolutions that were torn open to be looked at."""
    link = OnnxRuntimeLink(chain.quantized_file, "all")
    path = chain.quantized_file.with_name("observed.onnx")
    link._open(link.network.with_outputs(tuple(link.tensors)), optimized=path)
    ops = [node.op_type for node in onnx.load(path).graph.node]
    assert ops.count("QLinearConv") == 3 and "Conv" not in ops


def test_a_file_that_a_runtime_refuses_is_said(chain: Any) -> None:
    def plant(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type = "NoSuchOperator"

    link = OnnxRuntimeLink(Path(chain.planted(plant, file=chain.float_file)))
    with pytest.raises(LinkError, match=r"optimisations: all cannot load it: .*NoSuchOperator"):
        compare_links(CapturedLink(chain.folded), link, chain.inputs)
