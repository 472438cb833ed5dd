"""Capture: identity, source lines, state, structure, and what is refused with the user's own line."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitwright.quant.capture import CaptureError, capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_qdq import export_float
from bitwright.quant.graph import TensorKind, TensorRef

X = torch.randn(2, 3, 8, 8)


class Block(nn.Module):
    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.norm(self.conv(x))) + x


class Twice(nn.Module):
    """One block called twice, and functional operators in between."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()
        self.head = nn.Linear(3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.max_pool2d(self.block(x), 2)
        y = self.block(y)
        return self.head(torch.cat([y, -y], dim=0).mean((2, 3)))


class Memory(nn.Module):
    """A buffer that forward replaces, and one that it counts with."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.register_buffer("past", torch.zeros(2, 3, 8, 8))
        self.register_buffer("frames", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x) + 0.5 * self.past
        self.past = y
        self.frames += 1
        return y * self.frames


def refs_of(captured: CapturedModel) -> list[TensorRef]:
    return [ref for node in captured.graph.nodes for ref in node.outputs]


def agrees(model: nn.Module, args: tuple[Any, ...], **kwargs: Any) -> CapturedModel:
    captured = capture(model, args, kwargs)
    with torch.no_grad():
        expected = model.eval()(*args, **kwargs)
    torch.testing.assert_close(captured.run(*args, **kwargs), expected)
    return captured


# --- identity ---


def test_every_tensor_has_its_own_reference_and_keeps_it_over_captures() -> None:
    model = Twice().eval()
    first, second = agrees(model, (X,)), capture(model, (X,))
    assert len(set(refs_of(first))) == len(refs_of(first))
    assert refs_of(first) == refs_of(second)
    assert list(first.graph.tensors) == list(second.graph.tensors)
    assert all(TensorRef.parse(str(ref)) == ref for ref in first.graph.tensors)


def test_calls_of_one_module_are_told_apart_and_functions_belong_to_their_caller() -> None:
    captured = capture(Twice(), (X,))
    convs = [node for node in captured.graph.nodes if node.op == "conv2d"]
    assert [(n.module_path, n.module_type, n.outputs[0].call_index) for n in convs] == [
        ("block.conv", "Conv2d", 0),
        ("block.conv", "Conv2d", 1),
    ]
    assert {n.inputs[1] for n in convs} == {TensorRef("", "block.conv.weight")}
    pool = next(node for node in captured.graph.nodes if node.op == "max_pool2d")
    adds = [node for node in captured.graph.nodes if node.op == "add"]
    assert pool.module_path == ""
    assert [(n.module_path, n.outputs[0].call_index) for n in adds] == [("block", 0), ("block", 1)]


def test_the_region_is_part_of_the_name() -> None:
    captured = capture(Twice(), (X,), region="backbone")
    assert {ref.region for ref in captured.graph.tensors} == {"backbone"}
    assert str(captured.graph.inputs[0]) == "backbone!$x"


def test_source_lines_are_the_users_own() -> None:
    captured = capture(Twice(), (X,))
    lines, start = inspect.getsourcelines(Block.forward)
    conv = next(node for node in captured.graph.nodes if node.op == "conv2d")
    assert conv.source is not None
    assert Path(conv.source.file) == Path(__file__)
    assert conv.source.line == start + 1
    assert conv.source.text == lines[1].strip()
    assert all(node.source for node in captured.graph.nodes)


def test_tied_weights_are_one_parameter() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(7, 4)
            self.head = nn.Linear(4, 7, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(self.embedding(tokens))

    captured = agrees(Tied(), (torch.tensor([[1, 2, 3]]),))
    parameters = [ref for ref, info in captured.graph.tensors.items() if info.kind is TensorKind.PARAMETER]
    assert len(parameters) == 1
    assert len(captured.graph.consumers[parameters[0]]) == 2


# --- the model is left as it was ---


def test_the_models_modes_buffers_and_parameters_stay() -> None:
    model = nn.Sequential(Block(), Block(), nn.Dropout(0.5), Memory())
    model[1].eval()
    model.train(True)
    model[1].norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    captured = capture(model, (X,))
    captured.run(X)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(not parameter.grad_fn and parameter.requires_grad for parameter in model.parameters())


def test_a_failed_capture_leaves_the_model_as_it_was_too() -> None:
    class Bad(Memory):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.past = self.past + x
            return x if x.sum() > 0 else -x

    model = Bad().train()
    with pytest.raises(CaptureError):
        capture(model, (X,))
    assert model.training
    assert not model.past.any()
    assert isinstance(model.past, torch.Tensor)


def test_training_afterwards_does_not_change_what_was_captured() -> None:
    model = Block().eval()
    captured = capture(model, (X,))
    before = captured.run(X)
    with torch.no_grad():
        model.conv.weight.mul_(3)
        model.norm.running_var.mul_(2)
    assert torch.equal(captured.run(X), before)


def test_a_model_in_training_mode_is_captured_in_eval_mode() -> None:
    model = nn.Sequential(Block(), nn.Dropout(0.5)).train()
    captured = capture(model, (X,))
    assert torch.allclose(captured.run(X), model.eval()(X), atol=1e-6)
    assert {"dropout", "native_batch_norm"}.isdisjoint(node.op for node in captured.graph.nodes)


# --- state ---


def test_a_mutated_buffer_becomes_state_and_the_second_frame_is_right() -> None:
    model = Memory().eval()
    captured = capture(model, (X,))
    assert [str(before) for before, _ in captured.graph.state] == ["past", "frames"]
    state = captured.initial_state()
    with torch.no_grad():
        for frame in torch.randn(5, 2, 3, 8, 8):
            torch.testing.assert_close(captured.run(frame, state=state), model(frame))
    assert state[captured.state_names[1]] == 5


def test_without_state_every_run_starts_anew() -> None:
    captured = capture(Memory(), (X,))
    assert torch.equal(captured.run(X), captured.run(X))


# --- structure of arguments and results ---


class Nested(nn.Module):
    def forward(
        self, image: torch.Tensor, extras: dict[str, Any], *, scale: float = 2.0, masks: Any = None
    ) -> dict[str, Any]:
        points, (low, high) = extras["points"], extras["range"]
        result = image * scale + points + low - high
        if masks is not None:
            result = result * masks[0]
        return {"out": result, "more": (result.sum(), [image, None]), "name": "camera"}


def nested_arguments() -> tuple[tuple[Any, ...], dict[str, Any]]:
    extras = {"points": torch.randn(3), "range": (torch.randn(3), torch.randn(3))}
    return (torch.randn(2, 3), extras), {"masks": [torch.ones(3)], "scale": 3.0}


def test_nested_arguments_and_results_keep_their_structure() -> None:
    args, kwargs = nested_arguments()
    captured = capture(Nested(), args, kwargs)
    result = captured.run(*args, **kwargs)
    expected = Nested()(*args, **kwargs)
    torch.testing.assert_close(result["out"], expected["out"])
    torch.testing.assert_close(result["more"][0], expected["more"][0])
    assert torch.equal(result["more"][1][0], args[0])
    assert result["more"][1][1] is None
    assert result["name"] == "camera"
    assert len(captured.graph.inputs) == 5
    assert len(captured.outputs(result)) == len(captured.graph.outputs) == 3


def test_keyword_arguments_may_come_in_any_order() -> None:
    args, kwargs = nested_arguments()
    captured = capture(Nested(), args, kwargs)
    swapped = dict(reversed(kwargs.items()))
    torch.testing.assert_close(captured.run(*args, **swapped)["out"], Nested()(*args, **kwargs)["out"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda args, kwargs: (args[:1], kwargs), r"got the arguments \(float32\[2, 3\], masks=.*captured with"),
        (lambda args, kwargs: (args, {}), "the model was captured with"),
        (
            lambda args, kwargs: ((args[0][:1], args[1]), kwargs),
            r"got float32\[1, 3\]; .* captured with float32\[2, 3\]",
        ),
        (lambda args, kwargs: ((args[0].double(), args[1]), kwargs), r"got float64\[2, 3\]; .* float32\[2, 3\]"),
        (lambda args, kwargs: ((3.0, args[1]), kwargs), r"input \$image: got 3.0; .* float32\[2, 3\]"),
        # A graph is for one value of a number: another would be ignored without a word.
        (lambda args, kwargs: (args, {**kwargs, "scale": 4.0}), r"got 4.0; the model was captured with 3.0"),
    ],
)
def test_other_arguments_are_refused(change: Any, message: str) -> None:
    args, kwargs = nested_arguments()
    captured = capture(Nested(), args, kwargs)
    args, kwargs = change(args, kwargs)
    with pytest.raises(InputError, match=message):
        captured.run(*args, **kwargs)


# --- what networks bring along ---


def test_copies_and_casts_without_effect_fall_away() -> None:
    class Copies(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = F.dropout(x.clone().contiguous().to(torch.float32), training=self.training).detach()
            return y.transpose(1, 2).contiguous().view(2, -1) * 2

    captured = agrees(Copies(), (X,))
    assert [node.op for node in captured.graph.nodes] == ["transpose", "reshape", "mul"]


def test_twins_have_one_spelling() -> None:
    class Twins(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            six = [F.relu6(x), F.hardtanh(x, 0.0, 6.0), x.clamp(0, 6), x.clamp(max=6.0, min=0.0)]
            zero = [F.relu(x), x.clamp_min(0), x.clamp(min=0.0), torch.relu(x)]
            others = [x.clamp(max=1.0), x.clamp(min=0.5), x.long().clamp(0, 3)]
            return torch.stack([*six, *zero, *others])

    captured = agrees(Twins(), (X * 5,))
    ops = [node.op for node in captured.graph.nodes]
    assert ops == ["hardtanh"] * 4 + ["relu"] * 4 + ["clamp", "clamp", "to", "clamp", "stack"]


def test_a_dropout_that_stays_active_is_not_swept_away() -> None:
    class Always(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.dropout(x, 0.5)

    assert [node.op for node in capture(Always(), (X,)).graph.nodes] == ["dropout"]


def test_weight_normalization_and_parametrizations_are_computed_once() -> None:
    model = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)),
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 1)),
    ).eval()
    captured = agrees(model, (X,))
    assert [node.op for node in captured.graph.nodes] == ["conv2d", "conv2d"]


def test_what_does_not_depend_on_the_input_is_folded() -> None:
    class Grid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(16, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = torch.arange(8)[:, None] + torch.arange(8)[None]
            bias = self.table[rows.view(-1)].view(8, 8, 2).permute(2, 0, 1).exp()
            first, second = bias.split(1)
            noise = torch.zeros_like(x) + x.new_ones(8)
            return x * first + second + noise

    captured = agrees(Grid(), (X,))
    assert [node.op for node in captured.graph.nodes] == ["mul", "add", "add"]
    assert sum(info.kind is TensorKind.PARAMETER for info in captured.graph.tensors.values()) == 0


@pytest.mark.parametrize(
    ("equation", "shapes", "product"),
    [
        ("bic,bjc->bij", [(2, 3, 4), (2, 5, 4)], True),
        ("bhqd,bkhd->bhqk", [(2, 2, 3, 4), (2, 5, 2, 4)], True),
        ("nchw,co->nohw", [(2, 3, 4, 4), (3, 5)], True),
        ("i,i->", [(4,), (4,)], True),
        ("ij,jk->ki", [(2, 3), (3, 4)], True),
        ("bij->bj", [(2, 3, 4)], False),
        ("i,j->ij", [(3,), (4,)], False),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)], False),
        ("...ij,...jk->...ik", [(2, 2, 3), (2, 3, 4)], False),
        ("ij,j->j", [(2, 3), (3,)], False),
        ("ii,ij->j", [(3, 3), (3, 4)], False),
        ("bij,bjk->bik", [(1, 2, 3), (4, 3, 5)], False),
    ],
)
def test_einstein_sums_become_products_of_matrices_where_they_are(
    equation: str, shapes: list[tuple[int, ...]], product: bool
) -> None:
    class Sum(nn.Module):
        def forward(self, *operands: torch.Tensor) -> torch.Tensor:
            return torch.einsum(equation, *operands)

    captured = agrees(Sum(), tuple(torch.randn(shape) for shape in shapes))
    ops = {node.op for node in captured.graph.nodes}
    assert ("einsum" not in ops) is product
    assert ("matmul" in ops) is product


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_list_their_own_parameters_and_lose_nothing(layer: type[nn.Module]) -> None:
    model = layer(8, 4, 2, batch_first=True, bidirectional=True)
    x = torch.randn(2, 5, 8)
    captured = capture(model, (x,))
    for ours, expected in zip(captured.run(x), model(x), strict=True):
        torch.testing.assert_close(ours, expected)
    kinds = [info.kind for info in captured.graph.tensors.values()]
    assert kinds.count(TensorKind.PARAMETER) == len(list(model.parameters()))


def test_random_operators_are_not_folded() -> None:
    class Noise(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.randn(8)

    captured = capture(Noise(), (X,))
    assert not torch.equal(captured.run(X), captured.run(X))


def test_an_unused_parameter_is_dropped_and_an_unused_input_is_kept() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spare = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + 1

    captured = agrees(Unused(), (X, X))
    assert [str(ref) for ref in captured.graph.tensors if not ref.is_op_result] == ["$x", "$y"]


def test_masks_of_infinity_are_no_mistake() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.full((8, 8), -torch.inf).triu(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x + self.mask).softmax(-1)

    agrees(Masked(), (X,))


def test_other_float_types_are_captured_as_they_are() -> None:
    captured = agrees(nn.Conv2d(3, 4, 3).bfloat16(), (X.bfloat16(),))
    assert captured.graph.tensors[captured.graph.outputs[0]].dtype == "bfloat16"
    assert captured.graph.array(TensorRef("", "weight")).dtype == "float32"


# --- what is refused ---


class Loop(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(int(x.max().item())):
            x = x + 1
        return x


class Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.mean() > 0:
            x = -x
        return x


class MaskedWrite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        chosen = x.sum(-1) > 0
        y[chosen] = self.mlp(x[chosen])
        return y


class Untraceable(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.numpy() * 2)


@pytest.mark.parametrize(
    ("model", "line", "suggestion", "data_dependent"),
    [
        (Loop(), "for _ in range(int(x.max().item())):", "fixed number of steps", True),
        (Branch(), "if x.mean() > 0:", "torch.where", True),
        (Untraceable(), "return torch.from_numpy(x.numpy() * 2)", "", False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_a_failure_names_the_users_own_line(model: nn.Module, line: str, suggestion: str, data_dependent: bool) -> None:
    with pytest.raises(CaptureError, match="the model cannot be captured") as caught:
        capture(model, (X,))
    failure = caught.value.failure
    assert failure.source is not None
    assert Path(failure.source.file) == Path(__file__)
    assert failure.source.text == line
    assert suggestion in failure.suggestion
    assert failure.data_dependent is data_dependent
    assert f"{failure.source}: {line}" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 4


def test_a_masked_write_has_a_shape_that_is_not_known_and_is_refused_at_export(tmp_path: Path) -> None:
    captured = agrees(MaskedWrite(), (X,))
    assert any(None in info.shape for info in captured.graph.tensors.values())
    with pytest.raises(InputError, match=r"(dynamic shape|no ONNX translation)"):
        export_float(captured.graph, tmp_path / "model.onnx")


def test_a_number_read_from_a_constant_is_written_into_the_graph() -> None:
    class Item(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.tensor(2.5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale.item()

    captured = agrees(Item(), (X,))
    (node,) = captured.graph.nodes
    assert (node.op, node.attributes["other"]) == ("mul", 2.5)


def test_an_error_of_the_users_own_is_shown_with_its_line() -> None:
    class Wrong(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(7, 11)

    with pytest.raises(CaptureError, match=r"return x.reshape\(7, 11\)\n.*shape '\[7, 11\]' is invalid"):
        capture(Wrong(), (X,))


def test_a_forward_that_ends_the_process_is_refused_with_its_line() -> None:
    class Exits(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise SystemExit(3)

    line = inspect.getsourcelines(Exits.forward)[1] + 1
    message = (
        f"the model cannot be captured\n  {__file__}:{line}: raise SystemExit(3)\n  SystemExit: 3\n"
        "  forward ends the process there: raise an error instead, or leave the call out"
    )
    with pytest.raises(CaptureError, match=f"^{re.escape(message)}$"):
        capture(Exits(), (X,))


def test_an_argument_that_is_mutated_is_refused_by_name() -> None:
    class Mutates(nn.Module):
        def forward(self, x: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
            grid.add_(1)
            return x + grid

    with pytest.raises(CaptureError, match=r"forward mutates its argument 'grid' in place.*\n.*return the new value"):
        capture(Mutates(), (X, X.clone()))


class Attribute(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.past = torch.zeros(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.past = self.past + x
        return self.past


class Accumulator(Attribute):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.past.add_(x.sum())
        return self.past + x


class History(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.frames: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.frames.append(x)
        return torch.stack(self.frames).sum(0)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Attribute(), r"forward assigns self\.past, which is no buffer and would be lost"),
        (History(), r"forward assigns self\.frames\[0\], which is no buffer and would be lost"),
        (Accumulator(), "Constant past is mutated"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_state_outside_of_buffers_is_refused_rather_than_lost(model: nn.Module, reason: str) -> None:
    with pytest.raises(CaptureError, match=rf"{reason}.*\n.*self\.register_buffer\(name, tensor\)"):
        capture(model, (X,))


class Cached(nn.Module):
    """Computes a table of its parameters when it is first asked for it."""

    def __init__(self, of_the_input: bool) -> None:
        super().__init__()
        self.of_the_input, self.cache = of_the_input, {}
        self.bias = nn.Parameter(torch.randn(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if "table" not in self.cache:
            self.cache["table"] = x.mean() * self.bias if self.of_the_input else self.bias.exp()
        return x + self.cache["table"]


def test_a_table_that_is_computed_once_from_parameters_is_no_state() -> None:
    model = Cached(of_the_input=False)
    capture(model, (X,))
    assert model.cache == {}
    agrees(model, (X,))


class Forgetful(Cached):
    """Forgets its table whenever its mode is set, so that training does not go on with an old one."""

    def train(self, mode: bool = True) -> "Forgetful":
        super().train(mode)
        self.cache = {}
        return self


@pytest.mark.parametrize("training", [False, True])
def test_a_table_that_is_forgotten_with_the_mode_is_no_state(training: bool) -> None:
    model = Forgetful(of_the_input=False).train(training)
    capture(model, (X,))
    assert model.cache == {}
    assert model.training is training
    agrees(model.eval(), (X,))


def test_what_is_kept_of_the_first_input_is_state() -> None:
    with pytest.raises(CaptureError, match=r'self\.cache\["table"\] = .*\n.*forward assigns self\.cache'):
        capture(Cached(of_the_input=True), (X,))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(value: float) -> None:
    model = nn.Sequential(Block(), Block())
    with torch.no_grad():
        model[1].conv.weight[0, 0, 0, 0] = value
    with pytest.raises(InputError, match=r"1\.conv\.weight contains NaN or infinity; check the checkpoint"):
        capture(model, (X,))


def test_a_running_statistic_of_nan_is_refused_by_name() -> None:
    model = Block()
    model.norm.running_mean[1] = torch.nan
    with pytest.raises(InputError, match=r"norm\.running_mean contains NaN"):
        capture(model, (X,))


def test_a_lazy_module_is_refused_until_it_has_a_shape() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3))
    with pytest.raises(InputError, match=r"0\.weight has no shape yet; run the model once before it is captured"):
        capture(model, (X,))
    model(X)
    agrees(model, (X,))
