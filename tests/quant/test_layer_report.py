import gc
import math

import numpy as np
import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.formats import FORMATS
from bitwright.quant.layer_report import BINS, TensorReport, is_clipped, layer_report
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.ptq import quantize
from bitwright.quant.qparams import QParams
from bitwright.quant.quantized_model import QuantizedModel
from bitwright.quant.scheme import BiasKind, Granularity, QParamsSpec, QuantScheme
from bitwright.quant.sqnr import EXACT_DB, sqnr_db


def scheme(activations: str = "uint8", weights: str = "int8") -> QuantScheme:
    unsigned = activations.startswith("u")
    return QuantScheme(
        name="test",
        activations=QParamsSpec(format=FORMATS[activations], symmetric=not unsigned),
        weights=QParamsSpec(format=FORMATS[weights], symmetric=True, granularity=Granularity.PER_CHANNEL),
        bias=BiasKind.FLOAT32,
        quantized_operators=frozenset({"linear"}),
        fused_patterns=(("linear", "relu"),),
    )


def quantized_pair(model: nn.Module, batches: list[torch.Tensor], wanted: QuantScheme | None = None):
    captured = capture(model, (batches[0],))
    return fold_batch_norm(captured), quantize(captured, wanted or scheme(), batches, bias_correction=False)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.second = nn.Linear(16, 8)
        self.third = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.third(self.second(torch.relu(self.first(x))))


@pytest.fixture
def samples() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(5, 6, generator=generator) for _ in range(4)]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(1)
    return Two().eval()


def by_hand(values: np.ndarray, qparams: QParams) -> np.ndarray:
    scale, zero_point = qparams.scale.numpy().astype(np.float32), qparams.zero_point.numpy()
    if qparams.axis is not None:
        scale, zero_point = scale[:, None], zero_point[:, None]
    low, high = qparams.spec.code_range
    codes = np.clip(np.rint(values.astype(np.float32) / scale) + zero_point, low, high)
    return ((codes - zero_point) * scale).astype(np.float32)


def find(reports: tuple[TensorReport, ...], text: str) -> TensorReport:
    (found,) = (each for each in reports if str(each.ref).startswith(text))
    return found


def decibels(truth: np.ndarray, result: np.ndarray) -> float:
    return 10 * math.log10(np.square(truth, dtype=np.float64).sum() / np.square(truth - result, dtype=np.float64).sum())


def test_both_errors_equal_a_direct_computation(model: Two, samples: list[torch.Tensor]) -> None:
    reference, quantized = quantized_pair(model, samples)
    reports = layer_report(reference, quantized, [(x,) for x in samples])
    qparams = {str(ref): each for ref, each in quantized.qparams.items()}
    (hidden_name,) = (name for name in qparams if name.startswith("@") or name.startswith("$relu"))
    x = torch.cat(samples).numpy()
    weights = {n: p.detach().numpy() for n, p in model.named_parameters()}
    rounded = {n: by_hand(weights[n], qparams[n]) for n in weights if n.endswith("weight")}
    hidden = np.maximum(x @ weights["first.weight"].T + weights["first.bias"], 0)
    result = hidden @ weights["second.weight"].T + weights["second.bias"]

    x_q = by_hand(x, qparams["$x"])
    hidden_q = by_hand(np.maximum(x_q @ rounded["first.weight"].T + weights["first.bias"], 0), qparams[hidden_name])
    second_name = next(name for name in qparams if name.startswith("second@"))
    result_q = by_hand(hidden_q @ rounded["second.weight"].T + weights["second.bias"], qparams[second_name])
    own = by_hand(hidden @ rounded["second.weight"].T + weights["second.bias"], qparams[second_name])

    second = find(reports, "second@")
    assert second.sqnr_db == pytest.approx(decibels(result, result_q), abs=0.02)
    assert second.own_sqnr_db == pytest.approx(decibels(result, own), abs=0.02)
    assert find(reports, hidden_name).sqnr_db == pytest.approx(decibels(hidden, hidden_q), abs=0.02)
    weight = find(reports, "second.weight")
    assert weight.is_weight
    assert weight.sqnr_db == pytest.approx(decibels(weights["second.weight"], rounded["second.weight"]), abs=1e-3)


def test_histogram_and_clip_share_equal_numpy(model: Two, samples: list[torch.Tensor]) -> None:
    wide = [*samples, 3 * samples[0]]
    # Ranges are chosen on the narrow samples, so the wide one is cut.
    reference, quantized = quantized_pair(model, samples)
    report = find(layer_report(reference, quantized, [(x,) for x in wide]), "$x")
    values = torch.cat(wide).numpy()
    counts, edges = np.histogram(values, BINS, (values.min(), values.max()))
    np.testing.assert_allclose(report.edges, edges, rtol=1e-5, atol=1e-6)
    assert sum(report.counts) == values.size
    # torch and NumPy may put a value that lies on an edge into either bin.
    assert np.abs(np.asarray(report.counts) - counts).sum() <= 2
    qparams = next(q for ref, q in quantized.qparams.items() if str(ref) == "$x")
    low, high = (float(each) for each in qparams.range)
    half = float(qparams.scale) / 2
    cut = (values < low - half) | (values > high + half)
    assert 0 < cut.mean() == report.clipped
    assert (report.low, report.high) == (low, high)


def test_a_layer_that_reads_floats_is_not_blamed_for_those_before_it(samples: list[torch.Tensor]) -> None:
    torch.manual_seed(0)
    model = Two().eval()
    with torch.no_grad():  # one large weight in each row of the first layer: 4 bits are not enough for the others
        model.first.weight[:, 0] *= 30
    reference, quantized = quantized_pair(model, samples, scheme("uint16", "int4"))
    reports = layer_report(reference, quantized, [(x,) for x in samples])
    second = find(reports, "second@")
    assert second.own_sqnr_db > second.sqnr_db + 3


class Remembers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.register_buffer("memory", torch.zeros(5, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.memory.copy_(self.layer(x + self.memory))
        return self.layer(x) + self.memory


def test_state_advances_once_a_sample_in_each_of_the_runs(samples: list[torch.Tensor]) -> None:
    torch.manual_seed(0)
    reference, quantized = quantized_pair(Remembers().eval(), samples, scheme("uint16", "int16"))
    reports = layer_report(reference, quantized, [(x,) for x in samples])
    # 16 bits carry about 90 dB; a memory that is one sample off leaves less than 20.
    assert min(min(each.sqnr_db, each.own_sqnr_db) for each in reports) > 60


def test_memory_does_not_grow_with_the_samples(
    model: Two, samples: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, quantized = quantized_pair(model, samples)
    alive: list[int] = []
    run = CapturedModel.run
    gc.freeze()  # what was there before is not looked through again and again

    def counting_run(self: CapturedModel, *args, **kwargs):
        gc.collect()
        alive.append(sum(type(each) is torch.Tensor and each.shape[:1] == (5,) for each in gc.get_objects()))
        return run(self, *args, **kwargs)

    monkeypatch.setattr(CapturedModel, "run", counting_run)
    many = [(x,) for x in samples * 4]
    try:
        layer_report(reference, quantized, many)
    finally:
        gc.unfreeze()
    comparisons = alive[len(many) :]
    assert len(comparisons) == 3 * len(many)
    assert max(comparisons[3:]) == max(comparisons[:3])


def test_tensors_come_in_the_network_s_order_and_only_quantized_ones(model: Two, samples: list[torch.Tensor]) -> None:
    reference, quantized = quantized_pair(model, samples)
    reports = layer_report(reference, quantized, [(samples[0],)])
    order = list(quantized.captured.graph.tensors)
    assert [each.ref for each in reports] == sorted((each.ref for each in reports), key=order.index)
    assert {each.ref for each in reports} == set(quantized.qparams)
    assert {each.format for each in reports} == {"uint8", "int8"}


def test_a_range_that_ends_at_the_largest_value_clips_nothing() -> None:
    spec = QParamsSpec(format=FORMATS["uint8"], symmetric=False)
    qparams = QParams(spec, torch.tensor(5.9999995 / 255), torch.tensor(0.0))
    assert not is_clipped(torch.tensor([0.0, 6.0]), qparams).any()
    assert is_clipped(torch.tensor([-0.02, 6.02]), qparams).all()


def test_a_float_format_clips_where_its_last_step_ends() -> None:
    spec = QParamsSpec(format=FORMATS["float8_e4m3fn"], symmetric=True)
    qparams = QParams(spec, torch.tensor(1.0), torch.tensor(0.0))
    # 448 is followed by 480 on the format's grid, which is NaN's place: up to 464 rounds to 448.
    assert is_clipped(torch.tensor([448.0, 463.0, 465.0, -465.0]), qparams).tolist() == [False, False, True, True]


def test_no_sample_is_a_misuse(model: Two, samples: list[torch.Tensor]) -> None:
    reference, quantized = quantized_pair(model, samples)
    assert isinstance(quantized, QuantizedModel)
    with pytest.raises(ValueError, match="at least one sample"):
        layer_report(reference, quantized, [])


def test_sqnr_is_finite_at_its_ends() -> None:
    assert sqnr_db(1.0, 0.0) == EXACT_DB
    assert sqnr_db(0.0, 1.0) == 0.0
    assert sqnr_db(100.0, 1.0) == pytest.approx(20.0)
