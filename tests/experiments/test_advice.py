"""Advice names the cause that was planted, and nothing where nothing was planted."""

from collections.abc import Callable

import torch
from torch import nn

from bitwright.experiments.advice import Adviser
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.scheme_settings import scheme_of
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.fit_scheme import fit_scheme
from bitwright.quant.layer_report import layer_report
from bitwright.quant.ptq import quantize


def network(change: Callable[[nn.Sequential], None]) -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Flatten(),
        nn.Linear(512, 32), nn.Linear(32, 4),
    ).eval()  # fmt: skip
    with torch.no_grad():
        change(layers)
    return layers


def advice(
    change: Callable[[nn.Sequential], None], *overrides: str, target: str = "x86-vnni", shown: float = 1.0
) -> dict[str, str]:
    """By tensor; the samples that are looked at are `shown` times as large as those that calibrate."""
    recipe = load_recipe("digits", [f"target={target}", *overrides])
    wanted = load_target(target)
    scheme = scheme_of(recipe, wanted)
    samples = [(torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(i)),) for i in range(8)]
    captured = capture(network(change), samples[0])
    quantized = quantize(captured, scheme, samples, bias_correction=False)
    adviser = Adviser(recipe, wanted, quantized)
    looked_at = [(shown * x,) for (x,) in samples]
    reference = fit_scheme(captured, scheme)
    return {str(each.ref): adviser.on(each) for each in layer_report(reference, quantized, looked_at)}


def nothing(layers: nn.Sequential) -> None:
    pass


def loud_channel(layers: nn.Sequential) -> None:
    layers[4].weight[:, 5] /= 40
    layers[2].weight[5] *= 40
    layers[2].bias[5] *= 40


def loud_feature(layers: nn.Sequential) -> None:
    layers[6].weight[3] *= 60
    layers[7].weight[:, 3] /= 60


def dead_filters(layers: nn.Sequential) -> None:
    layers[2].weight[[1, 6]] = 0


def find(found: dict[str, str], start: str) -> str:
    (text,) = (text for name, text in found.items() if name.startswith(start))
    return text


def test_where_nothing_stands_out_nothing_is_said_of_causes() -> None:
    found = advice(nothing, "calibrate.observer=min_max")
    assert not any("cut off" in text for text in found.values())
    assert not any(text for name, text in found.items() if "weight" in name)


def test_values_beyond_the_range_are_clipping() -> None:
    cause, widen = (
        "of its rounding's noise is made by the values that are cut off: ",
        "more samples that show such values",
    )
    text = find(advice(nothing, shown=3.0), "$input")
    assert text.endswith(f"{cause}calibrate.observer: min_max keeps them, {widen} widen its range")
    own = find(advice(nothing, "calibrate.observer=min_max", shown=3.0), "$input")
    assert own.endswith(f"{cause}{widen} widen its range")


def test_a_loud_channel_is_named_with_what_it_costs_and_who_can_take_it() -> None:
    texts = [text for text in advice(loud_channel).values() if text.startswith("channel 5 reaches")]
    assert texts and all(
        text.endswith("quantize.equalization: true scales it into the next layer's weights") for text in texts
    )
    linear = [text for text in advice(loud_feature).values() if text.startswith("channel 3 reaches")]
    assert linear


def test_dead_depthwise_filters_are_counted() -> None:
    assert find(advice(dead_filters), "2.weight") == (
        "2 of 8 channels are constant: nothing is lost by removing what it computes"
    )


def test_weights_in_few_bits_are_blamed_by_the_noise_that_they_make_in_their_layers_result() -> None:
    found = advice(nothing, "quantize.weights.format=int4")
    blamed = [text for text in found.values() if "of its own noise comes from the rounded weights of its layer" in text]
    assert blamed and all(
        text.endswith("quantize.rounding: gptq rounds them in view of their inputs") for text in blamed
    )
    rounded = advice(nothing, "quantize.weights.format=int4", "quantize.rounding=gptq")
    assert not any("quantize.rounding: gptq" in text for text in rounded.values())
