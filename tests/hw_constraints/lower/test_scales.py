"""Plans whose scales the target has no hardware for."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from bitwright.hw_constraints.lower.lowering import lower
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.formats import FORMATS
from bitwright.quant.plan import plan
from bitwright.quant.scheme import Granularity, QParamsSpec

TARGET = load_target("orin-dla")
INT4_GROUPS = QParamsSpec(format=FORMATS["int4"], symmetric=True, granularity=Granularity.PER_BLOCK, block_size=32)
DYNAMIC = QParamsSpec(format=FORMATS["uint8"], symmetric=False, dynamic=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"weights": INT4_GROUPS, "operator_weights": {}},
            "weight weight has a scale for each block of 32; orin-dla runs weights with scales per_tensor: quantize "
            "the network by the target's scheme",
        ),
        (
            {"activations": DYNAMIC},
            r"activation \$input has scales per_tensor, computed from the data; orin-dla runs activations with scales "
            "per_tensor: quantize the network by the target's scheme",
        ),
    ],
    ids=["blocks", "dynamic"],
)
def test_scales_that_the_target_lacks_are_refused(change: dict[str, object], message: str) -> None:
    graph = capture(nn.Linear(64, 8), (torch.randn(1, 64),)).graph
    planned = plan(graph, replace(TARGET.scheme(), **change))
    with pytest.raises(InputError, match=f"^{message}$"):
        lower(graph, TARGET, plan=planned)


def test_the_targets_own_are_lowered() -> None:
    graph = capture(nn.Linear(64, 8), (torch.randn(1, 64),)).graph
    assert lower(graph, TARGET, plan=plan(graph, TARGET.scheme())).ops
