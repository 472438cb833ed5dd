from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.fit_scheme import fit_scheme
from bitwright.quant.ptq import quantize
from bitwright.quant.scheme import Override, QuantScheme


class Heads(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.into, self.out, self.options = nn.Linear(8, 24), nn.Linear(8, 8), options
        self.register_buffer("mask", torch.randn(5, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.into(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        options = {**self.options, **({"attn_mask": self.mask} if self.options.get("attn_mask") else {})}
        return self.out(F.scaled_dot_product_attention(query, key, value, **options).transpose(1, 2).flatten(2))


def operators(network: nn.Module, scheme: QuantScheme) -> list[str]:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 8)
    captured = capture(network.eval(), (x,))
    prepared = fit_scheme(captured, scheme)
    torch.testing.assert_close(prepared.run(x), network(x))
    return [node.op for node in prepared.graph.nodes]


def with_products(u8s8: QuantScheme) -> QuantScheme:
    return replace(u8s8, quantized_operators=u8s8.quantized_operators | {"matmul", "softmax", "linear"})


def test_attention_becomes_products_where_the_scheme_quantizes_these(u8s8: QuantScheme) -> None:
    written = operators(Heads(), with_products(u8s8))
    assert written.count("matmul") == 2 and "scaled_dot_product_attention" not in written
    assert operators(Heads(attn_mask=True), with_products(u8s8)).count("matmul") == 2


def test_its_products_run_in_low_precision(u8s8: QuantScheme) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 8)
    network = Heads().eval()
    quantized = quantize(capture(network, (x,)), with_products(u8s8), [(x,)])
    products = [node.name for node in quantized.captured.graph.nodes if node.op == "matmul"]
    assert len(products) == 2 and set(products) <= quantized.plan.quantized
    assert (quantized.run(x) - network(x)).abs().max() < 0.05


def test_it_stays_one_operator_where_products_are_float_masks_infinite_or_an_override_says_so(
    u8s8: QuantScheme,
) -> None:
    scheme = with_products(u8s8)
    without = replace(scheme, quantized_operators=scheme.quantized_operators - {"matmul"})
    assert "matmul" not in operators(Heads(), without)
    assert "matmul" not in operators(Heads(is_causal=True), scheme)
    kept = scheme.with_overrides(Override(operator="scaled_dot_product_attention", keep_float=True))
    assert "matmul" not in operators(Heads(), kept)
