import importlib.util
from functools import cached_property
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import QuantScheme


def _sibling(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NETWORKS = _sibling("networks")


class Example:
    """A small network, its example arguments, and what was made of them so far; they are only read."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        model, self.args = NETWORKS.NETWORKS[name]()
        self.model: nn.Module = model.eval()
        self._quantized: dict[str, QuantizedModel] = {}

    @cached_property
    def captured(self) -> CapturedModel:
        return capture(self.model, self.args)

    def quantized(self, scheme: QuantScheme) -> QuantizedModel:
        if scheme.name not in self._quantized:
            batches = [tuple(torch.randn_like(arg) for arg in self.args) for _ in range(3)]
            self._quantized[scheme.name] = quantize(self.captured, scheme, [*batches, self.args])
        return self._quantized[scheme.name]


EXAMPLES: dict[str, Example] = {}


@pytest.fixture(params=NETWORKS.NETWORKS)
def example(request: pytest.FixtureRequest) -> Example:
    """A small network and its example arguments, one after the other."""
    if request.param not in EXAMPLES:
        EXAMPLES[request.param] = Example(request.param)
    return EXAMPLES[request.param]


@pytest.fixture
def recurrent() -> nn.Module:
    model: nn.Module = NETWORKS.Recurrent().eval()
    return model
