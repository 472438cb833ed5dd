"""Halving finds what looking at every layer finds, in a logarithmic number of runs."""

import math
from typing import Any

import pytest

from bitwright.quant.parity import compare_links
from bitwright.quant.parity.bisect import bisect_layers
from bitwright.quant.parity.onnx_link import ReferenceLink
from bitwright.quant.parity.torch_links import CapturedLink, SimulationLink


def test_a_clean_network_takes_one_run(chain: Any) -> None:
    found = bisect_layers(CapturedLink(chain.folded), ReferenceLink(chain.float_file), chain.inputs[0])
    assert not found.breaks and found.runs == 1


@pytest.mark.parametrize("layer", ["stem.0", "inner.0", "down.0", "head"])
def test_one_fault_takes_a_logarithm_of_runs(chain: Any, rewrite: Any, layer: str) -> None:
    broken = chain.planted(lambda m: rewrite(m, f"{layer}.weight", lambda old: old * 1.01), file=chain.float_file)
    reference, other = CapturedLink(chain.folded), ReferenceLink(broken)
    found = bisect_layers(reference, other, chain.inputs[0])
    assert list(found.breaks) == [f"{layer}@0.0.0"]
    assert found.runs <= 2 * math.log2(len(reference.tensors)) + 5


def test_several_faults_in_codes_are_those_that_looking_at_every_layer_finds(chain: Any, rewrite: Any) -> None:
    def plant(model: Any) -> None:
        rewrite(model, "stem.0.weight/codes", lambda old: old[:, ::-1])
        rewrite(model, "down.0.weight/codes", lambda old: old.swapaxes(2, 3))

    reference, other = SimulationLink(chain.quantized), ReferenceLink(chain.planted(plant))
    halved = bisect_layers(reference, other, chain.inputs[0])
    every = compare_links(reference, other, chain.inputs[:1])
    assert list(halved.breaks) == [each.tensor.name for each in every.breaks] and len(halved.breaks) >= 2
