"""Faults planted in one layer are found in that layer, and nothing else is; by links that compute independently."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.parity import Inputs, compare_chain, compare_links
from bitwright.quant.parity.onnx_link import ReferenceLink
from bitwright.quant.parity.torch_links import CapturedLink, EagerLink, IntegerLink, SimulationLink
from bitwright.quant.ptq import quantize

Plant = Callable[[onnx.ModelProto, Callable[..., None]], None]


def test_a_clean_chain_agrees_everywhere(chain: Any) -> None:
    links = [
        EagerLink(chain.module, chain.captured.graph),
        CapturedLink(chain.captured),
        CapturedLink(chain.folded, "batch norms folded"),
        ReferenceLink(chain.float_file, "float file"),
        SimulationLink(chain.quantized),
        IntegerLink(chain.quantized),
        ReferenceLink(chain.quantized_file, "quantized file"),
    ]
    found = compare_chain(links, chain.inputs)
    assert found.agrees and [pair.problem for pair in found.pairs] == [""] * 6
    assert all(pair.layers and pair.unsteady == () for pair in found.pairs)


def _scale(model: onnx.ModelProto, rewrite: Callable[..., None]) -> None:
    rewrite(model, "inner.2@0.0.0/scale", lambda old: old * 1.03)


def _zero_point(model: onnx.ModelProto, rewrite: Callable[..., None]) -> None:
    rewrite(model, "inner.2@0.0.0/zero_point", lambda old: old + 1)


def _transposed(model: onnx.ModelProto, rewrite: Callable[..., None]) -> None:
    rewrite(model, "inner.0.weight/codes", lambda old: old.swapaxes(2, 3))


def _channel_order(model: onnx.ModelProto, rewrite: Callable[..., None]) -> None:
    rewrite(model, "inner.0.weight/codes", lambda old: old[:, ::-1])


def _bias_scale(model: onnx.ModelProto, rewrite: Callable[..., None]) -> None:
    name = next(each.name for each in model.graph.initializer if each.name.startswith("inner.0.bias/"))
    rewrite(model, name.rpartition("/")[0] + "/scale", lambda old: old * 2)


def _pads(model: onnx.ModelProto, rewrite: Callable[..., None]) -> None:
    conv = next(node for node in model.graph.node if node.output[0] == "inner.0@0.0.0")
    attribute = next(each for each in conv.attribute if each.name == "pads")
    del attribute.ints[:]
    attribute.ints.extend([2, 1, 0, 1])


INNER = {"inner.0@0.0.0", "inner.2@0.0.0"}


@pytest.mark.parametrize("plant", [_scale, _zero_point, _transposed, _channel_order, _bias_scale, _pads])
def test_a_fault_is_found_in_its_layer_and_no_other(chain: Any, rewrite: Any, plant: Plant) -> None:
    broken = chain.planted(lambda model: plant(model, rewrite))
    found = compare_links(SimulationLink(chain.quantized), ReferenceLink(broken), chain.inputs)
    blamed = {each.tensor.name for each in found.breaks}
    assert blamed and blamed <= INNER


def test_two_faults_are_found_one_by_one(chain: Any, rewrite: Any) -> None:
    def plant(model: onnx.ModelProto) -> None:
        rewrite(model, "stem.0.weight/codes", lambda old: old[:, ::-1])
        rewrite(model, "down.2@0.0.0/scale", lambda old: old * 1.1)

    found = compare_links(SimulationLink(chain.quantized), ReferenceLink(chain.planted(plant)), chain.inputs)
    assert {each.tensor.name.partition(".")[0] for each in found.breaks} == {"stem", "down"}


def test_float_layers_behind_a_fault_are_not_to_blame(chain: Any, rewrite: Any) -> None:
    broken = chain.planted(lambda m: rewrite(m, "stem.0.weight", lambda old: old * 1.001), file=chain.float_file)
    found = compare_links(CapturedLink(chain.folded), ReferenceLink(broken), chain.inputs)
    assert [each.tensor.name for each in found.breaks] == ["stem.0@0.0.0"]
    behind = next(each for each in found.layers if each.tensor.name == "head@0.0.0")
    assert behind.cumulative_db < 80  # it is far off, too, by what comes in


def test_a_quantized_file_against_the_float_network_is_judged_by_the_noise_of_its_codes(
    chain: Any, rewrite: Any
) -> None:
    reference = CapturedLink(chain.folded)
    assert compare_links(reference, ReferenceLink(chain.quantized_file), chain.inputs).agrees
    broken = chain.planted(lambda m: _channel_order(m, rewrite))
    found = compare_links(reference, ReferenceLink(broken), chain.inputs)
    assert {each.tensor.name for each in found.breaks} <= INNER and found.breaks


def test_the_own_error_of_a_layer_is_that_of_the_layer_alone(chain: Any, rewrite: Any) -> None:
    """By hand: the planted convolution on the reference's own input, in NumPy's float64."""
    broken = chain.planted(lambda m: rewrite(m, "inner.0.weight", lambda old: old * 1.5), file=chain.float_file)
    found = compare_links(CapturedLink(chain.folded), ReferenceLink(broken), chain.inputs[:1])
    layer = next(each for each in found.layers if each.tensor.name == "inner.0@0.0.0")
    kept = CapturedLink(chain.folded).run(chain.inputs[0], wanted=("stem.2@0.0.0", "inner.0@0.0.0")).tensors
    values = chain.folded.values
    refs = {str(ref): name for ref, name in chain.folded.value_refs.items()}
    weight = values[refs["inner.0.weight"]].double()
    alone = 0.5 * torch.nn.functional.conv2d(torch.from_numpy(kept["stem.2@0.0.0"]).double(), weight, padding=1)
    exact = kept["inner.0@0.0.0"].astype(np.float64)
    power = np.square(exact).mean()
    worst = (alone.abs().numpy() / np.sqrt(np.square(exact) + power)).argmax()  # as errors of rounding would lie
    expected = float(alone.abs().flatten()[worst]) / np.sqrt(power)
    assert layer.own is not None and layer.own.error == f"{expected:.1e} of its root mean square"


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.first(x)
        return x, self.last(x + torch.rand_like(x))


def test_what_differs_from_run_to_run_is_said_and_not_judged() -> None:
    x = torch.ones(2, 4)
    network = Noisy().eval()
    captured = capture(network, (x,))
    found = compare_links(EagerLink(network, captured.graph), CapturedLink(captured), [Inputs(args=(x,))])
    assert found.agrees and "last@0.0.0" in found.unsteady and "result[1]" in found.unsteady
    assert [each.tensor.name for each in found.layers] == ["first@0.0.0"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda x: {"a": x, "b": x[:1]},
            "2 results (result['a'] [2, 4], result['b'] [1, 4]) against 1 (result [2, 4])",
        ),
        (lambda x: x[:, :3], "shape [2, 3], expected [2, 4]"),
        (lambda x: torch.where(x > 1e9, x, torch.nan), "8 elements are NaN and 0 infinite in one of the two only"),
        (lambda x: x * 1.0001, "1.0e-04 of its root mean square"),
    ],
)
def test_results_of_callables(change: Callable[[torch.Tensor], Any], says: str) -> None:
    inputs = [Inputs(args=(torch.ones(2, 4),))]
    found = compare_links(EagerLink(change, name="changed"), EagerLink(lambda x: x, name="plain"), inputs)
    back = compare_links(EagerLink(lambda x: x), EagerLink(change), inputs)
    assert not found.agrees and not back.agrees
    assert says in {each.error for each in (*found.results.values(), *back.results.values())}


@pytest.mark.parametrize(
    "network",
    [
        lambda x: x / 0,
        lambda x: x * torch.nan,
        lambda x: x[:0],
        lambda x: (x, {"shape": x.shape[0], "empty": ()}),
        lambda x: x.argmax(),
    ],
)
def test_what_both_have_is_no_difference(network: Callable[[torch.Tensor], Any]) -> None:
    inputs: Sequence[Inputs] = [Inputs(args=(torch.ones(2, 4),))]
    assert compare_links(EagerLink(network), EagerLink(network), inputs).agrees


def test_a_link_that_cannot_run_is_said_and_the_rest_goes_on(chain: Any) -> None:
    def crash(*_: Any) -> Any:
        raise RuntimeError("no device")

    links = [CapturedLink(chain.captured), EagerLink(crash, name="device"), CapturedLink(chain.folded)]
    found = compare_chain(links, chain.inputs)
    assert [pair.problem for pair in found.pairs] == ["device: RuntimeError: no device", ""]
    assert found.pairs[1].first == "captured" and found.first_break is found.pairs[0]


def test_misuse_is_said(chain: Any) -> None:
    link = CapturedLink(chain.captured)
    with pytest.raises(InputError, match="there is only one"):
        compare_chain([link], chain.inputs)
    with pytest.raises(InputError, match="at least one input"):
        compare_links(link, link, [])


class Plain(nn.Module):
    """Sums that cancel over a plain background: what the weights' rounding leaves is large beside them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, 4, 3)
        with torch.no_grad():
            self.conv.weight -= 0.97 * self.conv.weight.mean((1, 2, 3), keepdim=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).clamp(-0.5, 6.0)


def test_rounded_weights_of_sums_that_cancel_are_no_fault_but_exchanged_ones_are(
    tmp_path: Path, u8s8: Any, rewrite: Any
) -> None:
    network = Plain().eval()
    data = [torch.full((1, 3, 12, 12), 0.9) + 0.05 * torch.randn(1, 3, 12, 12) for _ in range(4)]
    captured = capture(network, (data[0],))
    file = export_onnx_qdq(quantize(captured, u8s8, data, bias_correction=False), tmp_path / "plain.onnx")
    inputs = [Inputs(args=(each,)) for each in data[:2]]
    found = compare_links(CapturedLink(captured), ReferenceLink(file), inputs)
    (conv,) = (each for each in found.layers if each.tensor.op == "conv2d")
    weight = network.conv.weight.detach()
    step = weight.abs().amax((1, 2, 3), keepdim=True) / 127
    lost = float((step**2 / 12).expand_as(weight).sum() / weight.square().sum())
    assert conv.own is not None and conv.own.sqnr_db < -10 * np.log10(3 * lost)
    assert found.agrees
    model = onnx.load(file)
    rewrite(model, "conv.weight/codes", lambda old: old[:, :, ::-1])
    onnx.save(model, file)
    assert not compare_links(CapturedLink(captured), ReferenceLink(file), inputs).agrees
