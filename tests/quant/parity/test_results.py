import numpy as np
import pytest
import torch
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.parity import EXACT, Inputs, Origin, compare
from bitwright.quant.random_inputs import is_rigid, random_inputs

ONE = [Inputs(args=(torch.linspace(-2, 3, 24).reshape(2, 12),))]


def test_equal_functions_are_equal_bit_for_bit() -> None:
    parity = compare(torch.sin, torch.sin, ONE)
    assert parity.is_exact and parity.tensors[0].bit_equal and parity.max_rel == 0.0
    assert str(parity) == "bit for bit equal on 1 recorded and 0 random inputs"


def test_errors_are_those_of_numpy() -> None:
    def off(x: torch.Tensor) -> torch.Tensor:
        return torch.exp(x) * 1.01 + 0.001

    x = ONE[0].args[0].numpy().astype(np.float64)
    a = np.exp(x.astype(np.float32)).astype(np.float64)
    b = off(ONE[0].args[0]).numpy().astype(np.float64)
    result = compare(torch.exp, off, ONE).tensors[0]
    assert result.max_abs == pytest.approx(np.abs(a - b).max(), rel=1e-6)
    assert result.max_rel == pytest.approx(np.abs(a - b).max() / np.abs(a).max(), rel=1e-6)
    assert result.sqnr == pytest.approx(10 * np.log10((a**2).sum() / ((a - b) ** 2).sum()), rel=1e-6)
    assert not result.is_exact and "max error" in str(result)


def test_the_error_is_relative_to_the_scale_of_the_whole_tensor() -> None:
    near_zero = torch.tensor([1e-9, 1000.0])
    parity = compare(lambda x: near_zero, lambda x: near_zero + torch.tensor([5e-3, 0.0]), ONE)
    assert parity.max_rel == pytest.approx(5e-6) and parity.max_rel < EXACT and parity.is_exact


def test_structure_counts() -> None:
    parity = compare(lambda x: {"a": x, "b": (x, x)}, lambda x: {"a": x, "b": [x, x]}, ONE)
    assert not parity.is_sound
    assert parity.reason() == "the first returns {'a': *, 'b': (*, *)}, the second {'a': *, 'b': [*, *]}"


def test_results_are_named_by_their_place() -> None:
    parity = compare(lambda x: {"a": x, "b": (x, x)}, lambda x: {"a": x, "b": (x, x + 1)}, ONE)
    assert [each.name for each in parity.tensors if not each.is_exact] == ["result['b'][1]"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: x[:1], "the first is [2, 12], the second [1, 12]"),
        (lambda x: x.double(), "the first is torch.float32, the second torch.float64"),
        (lambda x: x.clone().fill_(torch.nan), "24 elements are NaN and 0 infinite in one of the two only"),
        (lambda x: x / 0, "24 infinite in one of the two only"),
    ],
)
def test_what_no_distance_can_say_is_a_mismatch(change: nn.Module, says: str) -> None:
    parity = compare(lambda x: x, change, ONE)
    assert not parity.is_sound and says in parity.reason()


def test_integers_have_to_be_equal() -> None:
    parity = compare(lambda x: x.argmax(1), lambda x: x.argmax(1).roll(1) + torch.tensor([0, 1]), ONE)
    assert "1 of 2 integers differ" in parity.reason()


def test_nan_and_infinity_in_both_are_equal() -> None:
    odd = torch.tensor([torch.nan, torch.inf, -torch.inf, 1.0])
    parity = compare(lambda x: odd, lambda x: odd.clone(), ONE)
    assert parity.is_exact and parity.tensors[0].bit_equal


def test_noise_in_the_reference_is_said() -> None:
    parity = compare(torch.rand_like, torch.rand_like, ONE)
    assert not parity.is_sound and "differs from run to run" in parity.reason()


class Counter(nn.Module):
    def __init__(self, step: float) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(2, 12))
        self.step = step

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x + self.total
        self.total.copy_(self.total + self.step)
        return out


def test_state_that_goes_out_is_compared_even_when_the_first_result_is_the_same() -> None:
    first, second = (capture(Counter(step), ONE[0].args) for step in (1.0, 2.0))
    parity = compare(first, second, ONE)
    assert [each.is_exact for each in parity.tensors] == [False, True]
    assert parity.tensors[0].name.startswith("state ")


def test_inner_tensors_are_compared_by_name() -> None:
    net = nn.Sequential(nn.Linear(12, 4), nn.ReLU())
    captured = capture(net, ONE[0].args)
    ref = captured.graph.nodes[0].outputs[0]
    parity = compare(captured, captured, ONE, inner=[ref])
    assert str(ref) in [each.name for each in parity.tensors] and parity.is_exact
    with pytest.raises(InputError, match="only be compared between captured networks"):
        compare(net, net, ONE, inner=[ref])


def test_nothing_to_compare_on_is_misuse() -> None:
    with pytest.raises(InputError, match="inputs is empty; give recorded inputs"):
        compare(torch.sin, torch.sin, [])


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)

    def forward(self, word: torch.Tensor, mask: torch.Tensor, pose: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"x": self.table(word.reshape(-1)), "y": torch.where(mask, 1.0, 0.0), "z": pose * 2}


ARGS = (torch.zeros(3, 50, dtype=torch.int64), torch.ones(40, dtype=torch.bool), torch.eye(4).repeat(2, 1, 1))


def test_random_inputs_fit_the_network() -> None:
    captured = capture(Mixed(), ARGS)
    made = random_inputs(captured, 3, seed=1)
    for each in made:
        word, mask, pose = each.args
        assert each.origin is Origin.RANDOM
        assert word.dtype == torch.int64 and set(word.unique().tolist()) == set(range(7))  # the table's rows
        assert mask.dtype == torch.bool and 0 < mask.sum() < 40
        assert pose.shape == (2, 4, 4) and not is_rigid(pose)
        captured.run(*each.args)
    assert torch.equal(made[0].args[2], random_inputs(captured, 1, seed=1)[0].args[2])
    assert not torch.equal(made[0].args[2], random_inputs(captured, 1, seed=2)[0].args[2])


def test_random_inputs_follow_what_was_recorded() -> None:
    captured = capture(Mixed(), ARGS)
    pose = torch.eye(4).repeat(2, 1, 1)
    pose[0, :2, :2] = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    pose[:, :3, 3] = 5.0
    recorded = [Inputs(args=(torch.full((3, 50), 3), ARGS[1], pose))]
    word, _, made = random_inputs(captured, 1, recorded=recorded)[0].args
    assert word.unique().tolist() == [3]
    assert is_rigid(made) and not torch.equal(made, pose)


def test_a_reflection_or_a_scaled_pose_is_not_rigid() -> None:
    assert is_rigid(torch.eye(4))
    assert not is_rigid(torch.diag(torch.tensor([1.0, 1.0, -1.0, 1.0])))
    assert not is_rigid(torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])))
    assert not is_rigid(torch.eye(3))
