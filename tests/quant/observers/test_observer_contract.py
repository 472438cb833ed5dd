"""What every observer must keep; a new one is tested by existing."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from bitwright.quant.errors import InputError
from bitwright.quant.formats import FORMATS
from bitwright.quant.observers.base import Observer, create_observer, observer_names
from bitwright.quant.qparams import choose_qparams
from bitwright.quant.scheme import QParamsSpec

ALL = observer_names()
# Later batches weigh more, by definition.
ORDERED = {"moving_average"}
FORMAT_NAMES = ["uint8", "int8", "int4", "uint16", "float8_e4m3fn", "float8_e5m2"]

DATA: dict[str, Callable[[], torch.Tensor]] = {
    "gaussian": lambda: torch.randn(4000),
    "relu": lambda: torch.randn(4000).relu(),
    "negative": lambda: -torch.rand(4000) - 0.5,
    "far from zero": lambda: torch.rand(4000) + 100,
    "constant": lambda: torch.full((100,), 0.7),
    "negative constant": lambda: torch.full((100,), -0.7),
    "one value": lambda: torch.tensor([3.0]),
    "zero": lambda: torch.zeros(100),
    "outlier": lambda: torch.cat([torch.randn(4000), torch.tensor([1e6])]),
    "denormal": lambda: torch.rand(100) * 1e-42,
    "huge": lambda: torch.randn(4000) * 1e37,
    "two values": lambda: torch.tensor([-1.0, 1.0]).repeat(50),
}


def make(name: str, number_format: str = "uint8", **arguments: Any) -> Observer:
    fmt = FORMATS[number_format]
    spec = QParamsSpec(format=fmt, symmetric=number_format != "uint8", observer=name, observer_arguments=arguments)
    return create_observer(spec)


def observed(name: str, *batches: torch.Tensor, number_format: str = "uint8") -> tuple[float, float]:
    observer = make(name, number_format)
    for batch in batches:
        observer.update(batch)
    low, high = observer.range()
    assert low.dtype == high.dtype == torch.float32
    assert low.dim() == high.dim() == 0
    return float(low), float(high)


def state_bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, list | tuple | set):
        return 8 + sum(map(state_bytes, value))
    if isinstance(value, dict):
        return 8 + sum(map(state_bytes, value.values()))
    return 8 + state_bytes(vars(value)) if hasattr(value, "__dict__") else 8


def test_the_five_that_are_promised_are_there() -> None:
    assert {"min_max", "moving_average", "percentile", "mse", "entropy"} <= set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_memory_does_not_grow_with_the_data(name: str) -> None:
    observer = make(name)
    observer.update(torch.randn(100))
    before = state_bytes(observer)
    for _ in range(40):
        observer.update(torch.randn(5, 1000) * 100)
    assert state_bytes(observer) == before


@pytest.mark.parametrize("number_format", FORMAT_NAMES)
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("name", ALL)
def test_the_range_is_finite_ordered_and_within_what_was_seen(name: str, data: str, number_format: str) -> None:
    values = DATA[data]()
    low, high = observed(name, values[: len(values) // 2 + 1], values, number_format=number_format)
    assert math.isfinite(low)
    assert math.isfinite(high)
    assert min(float(values.min()), 0.0) <= low <= high <= max(float(values.max()), 0.0)
    spec = QParamsSpec(format=FORMATS[number_format], symmetric=True)
    assert choose_qparams(torch.tensor(low), torch.tensor(high), spec).scale > 0


@pytest.mark.parametrize("name", ALL)
def test_only_zeros_give_the_range_of_zero(name: str) -> None:
    assert observed(name, torch.zeros(3, 4), torch.zeros(7)) == (0.0, 0.0)


@pytest.mark.parametrize("name", ALL)
def test_data_of_one_sign_gives_a_range_of_one_sign(name: str) -> None:
    assert observed(name, torch.rand(1000))[0] >= 0
    assert observed(name, -torch.rand(1000))[1] <= 0


@pytest.mark.parametrize("name", [name for name in ALL if name not in ORDERED])
def test_neither_order_nor_cut_matters(name: str) -> None:
    values = torch.randn(6000)
    whole = observed(name, values)
    assert observed(name, *values.split(1000)) == whole
    assert observed(name, *reversed(values.split(500))) == whole
    assert observed(name, values[torch.randperm(6000)].reshape(6, 10, 100)) == whole


@pytest.mark.parametrize("power", [-20, -1, 1, 7])
@pytest.mark.parametrize("name", ALL)
def test_the_range_follows_powers_of_two_exactly(name: str, power: int) -> None:
    batches = [torch.randn(3000), torch.randn(3000).relu() * 3]
    low, high = observed(name, *batches)
    factor = 2.0**power
    assert observed(name, *(batch * factor for batch in batches)) == (low * factor, high * factor)


@pytest.mark.parametrize("name", [name for name in ALL if name not in ORDERED])
def test_a_range_that_grows_over_time_is_followed(name: str) -> None:
    """Batches ten thousand times as large as the first must not end in the first one's range."""
    low, high = observed(name, *(torch.randn(2000) * 10.0**k for k in range(5)))
    assert high > 5000
    assert low < -5000


@pytest.mark.parametrize("name", ALL)
def test_one_outlier_costs_less_than_everything(name: str) -> None:
    batches = [*torch.randn(12, 8000), torch.tensor([1000.0])]
    _, high = observed(name, *batches)
    # Bins of half a unit are all that the outlier leaves; entropy looks at 128 of them at least.
    assert high < {"percentile": 10, "entropy": 100}.get(name, 1000.1)


@pytest.mark.parametrize("name", ALL)
def test_a_tensor_of_any_layout_is_taken(name: str) -> None:
    values = torch.randn(2, 8, 6, 6)
    expected = observed(name, values)
    assert observed(name, values.contiguous(memory_format=torch.channels_last)) == expected
    assert observed(name, values.transpose(1, 3)) == expected
    assert observed(name, values[None].expand(1, 2, 8, 6, 6)) == expected


@pytest.mark.parametrize("name", ALL)
def test_what_was_observed_is_left_alone(name: str) -> None:
    values = torch.randn(100)
    copy = values.clone()
    observed(name, values)
    assert torch.equal(values, copy)


@pytest.mark.parametrize("name", ALL)
def test_an_argument_that_it_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"^unknown argument of observer '{name}' 'colour'; there are: "):
        make(name, colour="red")


def test_an_unknown_observer_lists_the_choices() -> None:
    with pytest.raises(InputError, match=r"unknown observer 'minmax'; there are: .*min_max.*did you mean 'min_max'"):
        make("minmax")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("percentile", {"percentile": 101}, "percentile = 101; allowed: 50 < percentile <= 100"),
        ("moving_average", {"momentum": 0}, "momentum = 0; allowed: 0 < momentum <= 1"),
        ("mse", {"candidates": 1}, "candidates = 1; allowed: >= 2"),
        ("mse", {"smallest": 1.5}, "smallest = 1.5; allowed: 0 < smallest < 1"),
        ("entropy", {"candidates": 0}, "candidates = 0; allowed: >= 2"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"observer '{name}': {message}"):
        make(name, **arguments)
