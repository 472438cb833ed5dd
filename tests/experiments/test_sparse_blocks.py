import pytest
import torch
from torch import nn

from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.sparse_blocks import sparse_blocks
from bitwright.quant.errors import InputError


def test_a_pattern_that_is_none_is_refused_with_its_place() -> None:
    with pytest.raises(InputError, match=r"train\.sparsity.*pattern = '2of4' is neither N:M \(2:4\) nor ROWSxCOLUMNS"):
        load_recipe("digits", ["train.sparsity={blocks.1: 2of4}"])


def test_a_module_that_is_not_there_is_named() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    with pytest.raises(InputError, match=r"^train\.sparsity = 'head': the network has no such module; there are 0, 1$"):
        sparse_blocks(model, torch.optim.SGD(model.parameters(), lr=0.1), {"0": "2:4", "head": "2:4"})
