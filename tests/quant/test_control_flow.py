"""What the source of a forward says: each hazard on its own line, and nothing on sound ones."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitwright.quant.capture import CaptureError, capture
from bitwright.quant.control_flow import ControlFlow, Hazard, read_forward, read_modules

X = torch.randn(2, 4)


def hazards(module: nn.Module, *args: object) -> list[tuple[str, str]]:
    return [(each.hazard.name, each.source.text) for each in read_forward(module, args)]


class Branches(nn.Module):
    def forward(self, x: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
        if x.mean() > 0:
            x = -x
        y = x if bool((x > 1).any()) else x + 1
        assert not torch.isnan(y).any()
        return y * factor


class Loops(nn.Module):
    def forward(self, x: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        steps = counts.max().item()
        for _ in range(steps):
            x = x + 1
        while x.norm() > 1:
            x = x / 2
        return torch.stack([x for _ in range(int(counts[0]))])


class Masks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("valid", torch.ones(4, dtype=torch.bool))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        chosen = x[mask]
        if chosen.shape[0] == 0:
            return x
        y = x.clone()
        y[x > 0] = 1.0
        rows, _ = torch.where(x > 0)
        return y[:, self.valid].sum() + rows.sum() + len(torch.nonzero(x))


class Leaves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls, self.last, self.past, self.cache = 0, None, [], {}
        self.register_buffer("memory", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.last = x
        self.past.append(x)
        self.cache["last"] = x
        self.memory = self.memory + x.sum(0)
        x.add_(1)
        x[:, 0] = 0
        x += 1
        return x * self.calls


def threshold(values: torch.Tensor, limit: float) -> float:
    return float(values.amax()) * limit


class Helpers(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.step(x) * threshold(x, 0.5)

    def step(self, x: torch.Tensor) -> torch.Tensor:
        while x.sum() > 10:
            x = x / 2
        return x


class Sound(nn.Module):
    """Everything here is known before a tensor has values."""

    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(depth))
        self.strides, self.residual = (8, 16), True
        self.register_buffer("memory", torch.zeros(4))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None, scale: float = 1.0) -> torch.Tensor:
        batch, width = x.shape
        if mask is not None and self.residual and batch > 1 and scale > 0.5:
            x = x.masked_fill(mask, 0.0)
        if isinstance(x, torch.Tensor) and x.dim() == 2 and x.dtype == torch.float32:
            x = x.view(batch, int(width))
        for i, layer in enumerate(self.layers):
            x = F.relu(layer(x)) if i < len(self.layers) - 1 else layer(x)
        for part, stride in zip(x.split(2, 1), self.strides, strict=True):
            x = x + part.mean() * float(stride)
        index = x.argmax(-1)
        y = x.clone()
        y[:, 0] = 0
        y += 1
        self.memory = x.mean(0)
        return torch.where(x > 0, x, y).gather(1, index[:, None])


@pytest.mark.parametrize(
    ("module", "args", "expected"),
    [
        (
            Branches(),
            (X,),
            [
                ("BRANCH", "if x.mean() > 0:"),
                ("BRANCH", "y = x if bool((x > 1).any()) else x + 1"),
                ("SCALAR", "y = x if bool((x > 1).any()) else x + 1"),
                ("BRANCH", "assert not torch.isnan(y).any()"),
            ],
        ),
        (
            Loops(),
            (X, X),
            [
                ("SCALAR", "steps = counts.max().item()"),
                ("LOOP", "for _ in range(steps):"),
                ("LOOP", "while x.norm() > 1:"),
                ("LOOP", "return torch.stack([x for _ in range(int(counts[0]))])"),
                ("SCALAR", "return torch.stack([x for _ in range(int(counts[0]))])"),
            ],
        ),
        (
            Masks(),
            (X, X > 0),
            [
                ("MASKED", "chosen = x[mask]"),
                ("BRANCH", "if chosen.shape[0] == 0:"),
                ("MASKED", "y[x > 0] = 1.0"),
                ("SHAPE", "rows, _ = torch.where(x > 0)"),
                ("MASKED", "return y[:, self.valid].sum() + rows.sum() + len(torch.nonzero(x))"),
                ("SHAPE", "return y[:, self.valid].sum() + rows.sum() + len(torch.nonzero(x))"),
            ],
        ),
        (
            Leaves(),
            (X,),
            [
                ("COUNTER", "self.calls += 1"),
                ("STATE", "self.last = x"),
                ("STATE", "self.past.append(x)"),
                ("STATE", 'self.cache["last"] = x'),
                ("ARGUMENT", "x.add_(1)"),
                ("ARGUMENT", "x[:, 0] = 0"),
                ("ARGUMENT", "x += 1"),
            ],
        ),
        (
            Helpers(),
            (X,),
            [("SCALAR", "return float(values.amax()) * limit"), ("LOOP", "while x.sum() > 10:")],
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_each_hazard_stands_on_its_line(
    module: nn.Module, args: tuple[object, ...], expected: list[tuple[str, str]]
) -> None:
    found = read_forward(module, args)
    assert sorted((each.hazard.name, each.source.text) for each in found) == sorted(expected)
    assert [each.source.line for each in found] == sorted(each.source.line for each in found)


def test_what_is_known_beforehand_is_no_hazard() -> None:
    assert hazards(Sound(), X, X > 0) == []
    assert hazards(Sound()) == []


def test_lines_are_those_of_the_file() -> None:
    lines = Path(__file__).read_text().splitlines()
    for each in read_forward(Helpers(), (X,)):
        assert Path(each.source.file) == Path(__file__)
        assert lines[each.source.line - 1].strip() == each.source.text


def test_example_arguments_tell_tensors_from_numbers() -> None:
    class Untyped(nn.Module):
        def forward(self, x, count):  # type: ignore[no-untyped-def]
            return [x for _ in range(int(count))]

    assert hazards(Untyped(), X, 3) == []
    assert sorted(name for name, _ in hazards(Untyped(), X, X.sum())) == ["LOOP", "SCALAR"]


def test_a_model_is_read_class_by_class() -> None:
    model = nn.Sequential(Leaves(), nn.Sequential(Leaves(), nn.ReLU()), Sound())
    assert [each.source.text for each in read_modules(model, [Hazard.COUNTER])] == ["self.calls += 1"]


def test_library_modules_and_classes_without_source_have_nothing_to_say() -> None:
    made: dict[str, type[nn.Module]] = {}
    exec("class Made(nn.Module):\n    def forward(self, x):\n        return x[x > 0]", {"nn": nn}, made)
    assert read_forward(made["Made"](), (X,)) == ()
    assert read_forward(nn.MultiheadAttention(4, 2), (X, X, X)) == ()


def test_a_finding_becomes_a_failure_with_advice() -> None:
    (found,) = [each for each in read_forward(Leaves(), (X,)) if each.hazard is Hazard.COUNTER]
    failure = ControlFlow(hazard=found.hazard, source=found.source).failure()
    assert "register_buffer('count'" in failure.suggestion
    assert not failure.data_dependent


class Tracker(nn.Module):
    """Has no `forward` to look through."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def update(self, x: torch.Tensor) -> None:
        self.seen = [x]


class Tracks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tracker = Tracker()
        self.scale = 2.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Leaves x in self.tracker."""
        y = x * self.scale
        self.tracker.update(y)
        return y


def test_state_in_another_method_of_a_submodule_stands_on_the_line_that_calls_it() -> None:
    with pytest.raises(CaptureError, match=r"assigns self\.tracker\.seen\[0\]") as raised:
        capture(Tracks(), (X,))
    source = raised.value.failure.source
    assert source is not None
    assert source.text == "self.tracker.update(y)"
    assert Path(__file__).read_text().splitlines()[source.line - 1].strip() == source.text
