import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bitwright.qat import QATCallback
from bitwright.qat.distillation import (
    AttentionMap,
    Balance,
    Boxes,
    ChannelMaps,
    Distiller,
    Feature,
    Logits,
    Scores,
    attention_map_loss,
    attention_matrix_loss,
    box_loss,
    channel_map_loss,
    feature_loss,
    score_loss,
)
from bitwright.quant.errors import InputError

from .conftest import batch

RNG = np.random.default_rng(0)


def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(RNG.normal(size=shape)), torch.from_numpy(RNG.normal(size=shape))


def test_features_count_as_noise_over_signal() -> None:
    student, teacher = pair(3, 4, 5, 5)
    wanted = ((student.numpy() - teacher.numpy()) ** 2).sum() / (teacher.numpy() ** 2).sum()
    assert float(feature_loss(student, teacher)) == pytest.approx(wanted)
    assert float(feature_loss(10 * student, 10 * teacher)) == pytest.approx(wanted)


def test_attention_maps_are_the_papers() -> None:
    student, teacher = torch.from_numpy(RNG.normal(size=(3, 6, 4, 4))), torch.from_numpy(RNG.normal(size=(3, 9, 4, 4)))
    maps = [(each.numpy() ** 2).sum(1).reshape(3, -1) for each in (student, teacher)]
    normal = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in maps]
    wanted = np.linalg.norm(normal[0] - normal[1], axis=1).mean()
    assert float(attention_map_loss(student, teacher)) == pytest.approx(wanted)


def test_attention_matrices_are_compared_by_their_divergence() -> None:
    student, teacher = (torch.from_numpy(RNG.dirichlet(np.ones(5), size=(2, 3, 4))) for _ in range(2))
    wanted = (teacher.numpy() * np.log(teacher.numpy() / student.numpy())).sum(-1).mean()
    assert float(attention_matrix_loss(student, teacher)) == pytest.approx(wanted)
    assert float(attention_matrix_loss(student[:, :1], student[:, :1].expand(2, 3, 4, 5))) == pytest.approx(0.0)


def test_channel_maps_are_softmaxed_over_places() -> None:
    student, teacher = pair(2, 3, 4, 4)
    powers = [np.exp(each.numpy().reshape(2, 3, -1) / 2.0) for each in (student, teacher)]
    q, p = (each / each.sum(2, keepdims=True) for each in powers)
    wanted = 2.0**2 / 3 * (p * np.log(p / q)).sum((1, 2)).mean()
    assert float(channel_map_loss(student, teacher, temperature=2.0)) == pytest.approx(wanted)


def test_scores_count_where_the_two_differ() -> None:
    student, teacher = pair(2, 3, 5)
    q, p = (1 / (1 + np.exp(-each.numpy())) for each in (student, teacher))
    divergence = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    wanted = ((q - p) ** 2 * divergence).sum() / p.sum()
    assert float(score_loss(student, teacher)) == pytest.approx(wanted)


def test_boxes_count_where_the_teacher_is_sure() -> None:
    student, teacher = pair(2, 4, 3)
    sure = torch.tensor([[1.0, 0.0, 0.5], [0.0, 0.0, 0.0]], dtype=torch.float64)
    apart = np.abs(student.numpy() - teacher.numpy())
    smooth = np.where(apart < 1, 0.5 * apart**2, apart - 0.5)
    wanted = (sure.numpy()[:, None] * smooth).sum() / (4 * 1.5)
    assert float(box_loss(student, teacher, sure)) == pytest.approx(wanted)


def test_the_balance_is_the_best_uncertainty_of_each_term() -> None:
    values = {"a": torch.tensor(40.0, requires_grad=True), "b": torch.tensor(0.02, requires_grad=True)}
    # Kendall's loss, its log-variances led to their optimum by their gradient.
    logs = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.LBFGS([logs], max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        result = ((-logs).exp() * torch.stack(list(values.values())).detach() + logs).sum()
        result.backward()
        return result

    optimizer.step(loss)
    Balance(momentum=1.0).total(values).backward()
    for term, log in zip(values.values(), logs, strict=True):
        assert term.grad is not None
        assert float(term.grad) == pytest.approx(float((-log.detach()).exp()), rel=1e-3)


def test_the_balance_follows_its_terms_slowly_and_not_in_evaluation() -> None:
    balance = Balance(momentum=0.1, shares={"a": 3.0})
    assert float(balance.total({"a": torch.tensor(2.0)})) == pytest.approx(3.0)
    assert float(balance.total({"a": torch.tensor(1.0)})) == pytest.approx(3.0 / 1.9)
    with torch.no_grad():
        balance.total({"a": torch.tensor(100.0)})
    assert balance.state_dict() == pytest.approx({"a": 1.9})
    other = Balance()
    other.load_state_dict(balance.state_dict())
    assert other.averages == balance.averages


class TwoHeads(nn.Module):
    """A backbone of some width with class scores and boxes at each place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3))
        self.scores, self.boxes = nn.Conv2d(width, 5, 1), nn.Conv2d(width, 4, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = F.relu(self.backbone(x))
        return {"boxes": self.boxes(features), "scores": self.scores(features)}


def test_a_narrow_student_learns_from_a_wide_teacher_through_projections() -> None:
    torch.manual_seed(0)
    student, teacher = TwoHeads(6), TwoHeads(16)
    x, _ = batch()
    terms = [
        Scores(output=1),
        Boxes(output=0, scores=1),
        ChannelMaps(output=1),
        Feature(module="backbone.0"),
        AttentionMap(module="backbone.2"),
    ]
    distiller = Distiller(student, (x,), teacher=teacher, terms=terms)
    (projection,) = distiller.parameters()
    assert projection.shape == (16, 6, 1, 1)
    optimizer = torch.optim.Adam([*student.parameters(), *distiller.parameters()], lr=1e-2)
    qat = QATCallback(student, optimizer, target="x86-vnni", calibration=[x])
    history = []
    for _ in range(30):
        student.train()
        loss = distiller.loss(student(x), (x,))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        qat.on_step()
        history.append(distiller.last)
    assert set(history[0]) == {"scores.1", "boxes.0", "channelmaps.1", "feature.backbone.0", "attentionmap.backbone.2"}
    assert all(history[-1][name] < history[0][name] for name in history[0])
    assert all(parameter.grad is None for parameter in teacher.parameters())
    qat.finish()
    distiller.remove()
    assert not any(module._forward_hooks for module in student.modules())


def test_the_float_network_is_its_own_teacher(everything: nn.Module) -> None:
    x, _ = batch()
    distiller = Distiller(everything, (x,), terms=[Logits(temperature=2.0), Feature(module="blocks.1")])
    assert not list(distiller.parameters())
    before = copy.deepcopy(everything).eval()(x)
    qat = QATCallback(everything, torch.optim.Adam(everything.parameters()), target="x86-vnni", calibration=[x])
    everything.train()
    distiller.loss(everything(x), (x,)).backward()
    assert torch.equal(distiller.teacher(x), before)
    assert everything.head.weight.grad is not None  # type: ignore[union-attr]
    qat.finish()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"terms": []}, r"terms \[\]; give at least one"),
        ({"terms": [Logits(), Logits()]}, "each of them once"),
        ({"terms": [Feature(module="nothing")]}, "the network that trains has no module 'nothing'"),
        ({"terms": [Logits(output=3)]}, "output = 3; the network returns 1 floating-point tensors"),
    ],
)
def test_what_it_refuses(everything: nn.Module, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Distiller(everything, (batch()[0],), **options)


def test_features_of_another_resolution_are_refused() -> None:
    terms = [Feature(module="backbone.2", teacher_module="backbone.0")]
    with pytest.raises(InputError, match="only their channels may differ: name modules of the same resolution"):
        Distiller(TwoHeads(6), (batch()[0],), teacher=TwoHeads(16), terms=terms)
