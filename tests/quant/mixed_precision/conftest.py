import importlib.util
from pathlib import Path

import pytest
import torch

from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.formats import FORMATS
from bitwright.quant.mixed_precision import FLOAT, LayerFormat, MixedNetworks, Problem
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.ptq import quantize
from bitwright.quant.scheme import QParamsSpec

_spec = importlib.util.spec_from_file_location("mixed_network", Path(__file__).with_name("network.py"))
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)

SCHEME = load_target("x86-vnni").scheme()
INT16 = LayerFormat(
    name="int16",
    weights=SCHEME.weights,
    activations=QParamsSpec(format=FORMATS["int16"], symmetric=True),
)


@pytest.fixture(scope="session")
def reference():
    torch.manual_seed(0)
    return fold_batch_norm(capture(_module.Network().eval(), (torch.zeros(2, 3, 8, 8),)))


@pytest.fixture(scope="session")
def problem(reference):
    formats = (LayerFormat(name="int8"), INT16, FLOAT)
    return Problem(graph=reference.graph, scheme=SCHEME, formats=formats, allowed=tuple(each.name for each in formats))


@pytest.fixture(scope="session")
def data():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 3, 8, 8, generator=generator) for _ in range(8)]


@pytest.fixture(scope="session")
def networks(problem, reference, data):
    return MixedNetworks(problem, reference, lambda scheme: quantize(reference, scheme, data), [(x,) for x in data[:4]])
