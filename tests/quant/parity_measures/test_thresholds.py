"""Sound networks raise no alarm, small faults of deployment do; nothing is tuned, the formats say what is allowed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from scipy.stats import chi2
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_float, export_onnx_qdq
from bitwright.quant.parity import Inputs
from bitwright.quant.parity.torch_links import named_outputs
from bitwright.quant.parity_measures import (
    Draws,
    Kind,
    Verdict,
    judge_outputs,
    quantization_draws,
    rounding_draws,
)
from bitwright.quant.parity_measures.thresholds import FALSE_ALARMS, allowed_power, judge_count, judge_values
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.ptq import quantize
from bitwright.quant.scheme import QuantScheme

Make = Callable[..., nn.Module]
Run = Callable[..., dict[str, np.ndarray]]


@pytest.fixture(name="image")
def _image() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def judged(draws: Draws, results: dict[str, np.ndarray]) -> tuple[Verdict, ...]:
    return judge_outputs(draws.clean, dict(zip(draws.clean, results.values(), strict=True)), draws)


@pytest.mark.parametrize("optimised", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_sound_forms_raise_no_alarm(
    segmenter: Make, image: torch.Tensor, tmp_path: Path, run_file: Run, optimised: bool, threads: int
) -> None:
    module = segmenter()
    captured = capture(module, (image,))
    draws = rounding_draws(captured, Inputs(args=(image,)))
    with torch.no_grad():
        eager = named_outputs(module(image))
    folded = fold_batch_norm(captured)
    file = export_float(folded.graph, tmp_path / "float.onnx")
    forms = [
        eager,
        named_outputs(folded.run(image)),
        run_file(file, {"x": image.numpy()}, optimised=optimised, threads=threads),
    ]
    for form in forms:
        assert [each.reason for each in judged(draws, form) if not each.agrees] == []


@pytest.mark.parametrize(
    "fault", [{"epsilon": 1e-3}, {"padding": 0}, {"align_corners": True}], ids=["epsilon", "padding", "align_corners"]
)
def test_planted_faults_raise_one(segmenter: Make, image: torch.Tensor, fault: dict[str, float]) -> None:
    draws = rounding_draws(capture(segmenter(), (image,)), Inputs(args=(image,)))
    with torch.no_grad():
        wrong = named_outputs(segmenter(**fault)(image))
    (depth,) = [each for each in judged(draws, wrong) if "depth" in each.name]
    assert not depth.agrees
    assert "operators, of which the coarsest is" in depth.reason
    assert "expected relative difference" in depth.reason


def test_half_precision_is_allowed_what_it_rounds_and_no_more(segmenter: Make, image: torch.Tensor) -> None:
    captured = capture(segmenter(), (image,))
    inputs = Inputs(args=(image,))
    with torch.no_grad():
        half = named_outputs(segmenter().to(torch.bfloat16)(image.bfloat16()))
    strict, lenient = rounding_draws(captured, inputs), rounding_draws(captured, inputs, arithmetic="bfloat16")
    key = "result['depth']"
    assert not judge_values(key, strict.clean[key], half[key], [each[key] for each in strict.noisy], why="").agrees
    assert judge_values(key, strict.clean[key], half[key], [each[key] for each in lenient.noisy], why="").agrees


def test_codes_against_real_values(
    segmenter: Make, image: torch.Tensor, u8s8: QuantScheme, tmp_path: Path, run_file: Run
) -> None:
    """Quantized with step² / 12 a tensor: the simulation and the file lie within it, and near what was expected."""
    captured = capture(segmenter(), (image,))
    quantized = quantize(captured, u8s8, [(torch.randn_like(image),) for _ in range(4)] + [(image,)])
    draws = quantization_draws(captured, quantized, Inputs(args=(image,)))
    file = run_file(export_onnx_qdq(quantized, tmp_path / "codes.onnx"), {"x": image.numpy()}, optimised=True)
    for form in (named_outputs(quantized.run(image)), file):
        found = judged(draws, form)
        assert [each.reason for each in found if not each.agrees] == []
        (depth,) = [each for each in found if "depth" in each.name]
        assert 0.5 < depth.seen / depth.expected < 1.5


def _scales(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Of activations, as Q/DQ pairs of them share them."""
    read = {node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    yield from (each for each in model.graph.initializer if each.name in read)


@pytest.mark.parametrize("fault", ["scale", "zero point"])
def test_one_wrong_number_of_a_quantized_file(
    segmenter: Make, image: torch.Tensor, u8s8: QuantScheme, tmp_path: Path, run_file: Run, fault: str
) -> None:
    captured = capture(segmenter(), (image,))
    quantized = quantize(captured, u8s8, [(image,)])
    draws = rounding_draws(quantized, Inputs(args=(image,)))
    model = onnx.load(export_onnx_qdq(quantized, tmp_path / "codes.onnx"))
    feeds = {"x": image.numpy()}
    onnx.save(model, tmp_path / "sound.onnx")
    sound = judged(draws, run_file(tmp_path / "sound.onnx", feeds, optimised=False))
    assert [each.reason for each in sound if not each.agrees] == []
    # The second node that quantizes: what dequantizes its codes reads another number from now on.
    nodes = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    quantizers = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    reader = next(node for node in nodes if node.input[0] == quantizers[1])
    position = 1 if fault == "scale" else 2
    old = next(each for each in model.graph.initializer if each.name == reader.input[position])
    value = numpy_helper.to_array(old)
    changed = value * value.dtype.type(1.1) if fault == "scale" else value + value.dtype.type(1)
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(changed, value.dtype), "planted"))
    reader.input[position] = "planted"
    onnx.save(model, tmp_path / "planted.onnx")
    wrong = judged(draws, run_file(tmp_path / "planted.onnx", feeds, optimised=False))
    assert any(not each.agrees for each in wrong)


@pytest.mark.parametrize("free", [1, 2, 5, 20])
def test_false_alarms_are_as_rare_as_said(free: int) -> None:
    """By the exact tail beyond what is allowed, for errors with few to many independent parts."""
    rng = np.random.default_rng(free)
    allowed = allowed_power(rng.chisquare(free, (400_000, 8)) / free)
    assert chi2.sf(free * allowed, free).mean() <= 2 * FALSE_ALARMS


def test_counts_that_come_in_bunches() -> None:
    rng = np.random.default_rng(1)
    clean = np.zeros(4000, np.int64)

    def draw() -> np.ndarray:
        out = clean.copy()
        out[: int(rng.poisson(2)) * 40] = 1  # forty at a time
        return out

    noisy = [draw() for _ in range(8)]
    assert not any(not judge_count("x", clean, draw(), clean, noisy, why="").agrees for _ in range(500))
    assert not judge_count("x", clean, np.ones_like(clean), clean, noisy, why="").agrees


def test_an_index_that_moves_without_cause_is_an_alarm() -> None:
    clean = {"result['index']": np.arange(5)}
    draws = Draws(clean=clean, noisy=(clean,) * 8)
    (sound,) = judge_outputs(clean, clean, draws)
    (moved,) = judge_outputs(clean, {"result['index']": np.array([0, 1, 3, 2, 4])}, draws)
    assert (sound.agrees, moved.agrees) == (True, False)


def test_a_lone_nan_and_another_shape_are_alarms() -> None:
    clean = {"x": np.ones((1, 3), np.float32)}
    draws = Draws(clean=clean, noisy=({"x": clean["x"] + np.float32(1)},) * 8)
    nan = np.array([[1, np.nan, 1]], np.float32)
    for wrong in (nan, np.ones((1, 4), np.float32)):
        (found,) = judge_outputs(clean, {"x": wrong}, draws, kinds={"x": Kind.VALUES})
        assert not found.agrees


def test_masks_of_probabilities_are_judged_by_what_they_decide() -> None:
    rng = np.random.default_rng(0)
    clean = {"result['mask']": rng.uniform(size=(1, 50, 50))}
    draws = Draws(
        clean=clean, noisy=tuple({n: v + 1e-6 * rng.normal(size=v.shape) for n, v in clean.items()} for _ in range(8))
    )
    (sound,) = judge_outputs(clean, {n: v + 1e-6 * rng.normal(size=v.shape) for n, v in clean.items()}, draws)
    (wrong,) = judge_outputs(clean, {n: v + 1e-2 for n, v in clean.items()}, draws)
    assert sound.agrees, sound.reason
    assert not wrong.agrees
