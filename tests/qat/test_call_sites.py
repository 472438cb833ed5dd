import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bitwright.qat.call_sites import Boundary, CallSites, operator_name, undispatched


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (torch.add, "add"),
        (torch.Tensor.add_, "add"),
        (torch.Tensor.__add__, "add"),
        (torch.Tensor.__iadd__, "add"),
        (torch.Tensor.__rmul__, "mul"),
        (torch.Tensor.__truediv__, "div"),
        (torch.Tensor.__matmul__, "matmul"),
        (F.relu, "relu"),
        (F.relu_, "relu"),
        (F.adaptive_avg_pool2d, "adaptive_avg_pool2d"),
    ],
    ids=lambda value: getattr(value, "__qualname__", value),
)
def test_operators_have_one_name_however_they_are_called(function: object, name: str) -> None:
    assert operator_name(function) == name


def calls_of(module: nn.Module, operators: set[str], *args: torch.Tensor) -> list[tuple[int, tuple[str, int], bool]]:
    before = torch.overrides._get_current_function_mode()
    mode = CallSites()
    boundaries = {each: Boundary(mode, operators if each is module else ()) for each in module.modules()}
    boundaries[module].events = []
    handles = []
    for each, boundary in boundaries.items():
        handles.append(each.register_forward_pre_hook(boundary.enter, with_kwargs=True))
        handles.append(each.register_forward_hook(boundary.leave, always_call=True))
    with torch.no_grad():
        module(*args)
    for handle in handles:
        handle.remove()
    assert torch.overrides._get_current_function_mode() is before
    return [(event.call, event.key, event.used) for event in boundaries[module].events or ()]


class Spelled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(x) + torch.relu(x)
        x += self.inner(x)
        x = x.relu()
        return F.max_pool2d(F.interpolate(x, scale_factor=2, mode="bilinear"), 2)


def test_calls_are_counted_by_operator_and_those_of_inner_modules_are_not() -> None:
    calls = calls_of(Spelled(), {"relu", "add"}, torch.randn(1, 2, 4, 4))
    assert [key for _, key, _ in calls] == [("relu", 0), ("relu", 1), ("add", 0), ("add", 1), ("relu", 2)]


def test_functions_that_call_others_are_looked_into_when_those_are_wanted() -> None:
    calls = calls_of(Spelled(), {"upsample_bilinear2d", "max_pool2d"}, torch.randn(1, 2, 4, 4))
    assert [key for _, key, _ in calls] == [("upsample_bilinear2d", 0), ("max_pool2d", 0)]


def test_a_result_that_is_written_in_place_and_dropped_is_noticed() -> None:
    class Both(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x + 1
            y.relu_()
            z = y.relu_()
            return z * 2

    calls = calls_of(Both(), {"relu"}, torch.randn(3))
    assert [used for _, _, used in calls] == [False, True]


def test_the_undispatched_twin_computes_the_same() -> None:
    x, weight = torch.randn(2, 3, 8, 8), torch.randn(3)
    for function, args in (
        (F.interpolate, (x, None, 2)),
        (F.max_pool2d, (x, 2)),
        (F.instance_norm, (x, None, None, weight)),
    ):
        assert torch.equal(undispatched(function)(*args), function(*args))
    assert undispatched(F.interpolate) is undispatched(F.interpolate)


def test_a_mode_of_the_users_own_goes_on_seeing_calls() -> None:
    class Counting(torch.overrides.TorchFunctionMode):
        seen = 0

        def __torch_function__(self, function, kinds, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            Counting.seen += function is torch.relu
            return function(*args, **(kwargs or {}))

    with Counting():
        calls = calls_of(Spelled(), {"add"}, torch.randn(1, 2, 4, 4))
    assert [key for _, key, _ in calls] == [("add", 0), ("add", 1)]
    assert Counting.seen == 2  # torch.relu itself, and the one inside F.relu, which is looked into
