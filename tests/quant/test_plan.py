"""The plan on small networks: what is quantized, how, who shares, and what stays in float and why."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bitwright.quant.capture import capture
from bitwright.quant.formats import FORMATS
from bitwright.quant.geometry import geometry_nodes
from bitwright.quant.graph import Graph, Node, TensorInfo, TensorKind, TensorRef
from bitwright.quant.passes.fold_batch_norm import fold_batch_norm
from bitwright.quant.plan import QuantPlan, plan
from bitwright.quant.scheme import BiasKind, Granularity, Override, QParamsSpec, QuantScheme

X = torch.randn(1, 4, 8, 8)
INT16 = QParamsSpec(format=FORMATS["int16"], symmetric=True)
INT8 = QParamsSpec(format=FORMATS["int8"], symmetric=True)
INT4 = QParamsSpec(format=FORMATS["int4"], symmetric=True, granularity=Granularity.PER_CHANNEL)


class Functional(nn.Module):
    """Some layers, and a forward made of them."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.function = forward

    def forward(self, *args: torch.Tensor) -> Any:
        return self.function(self, *args)


def conv(channels: int = 4, outputs: int = 4) -> nn.Conv2d:
    return nn.Conv2d(channels, outputs, 3, padding=1)


def planned(
    scheme: QuantScheme, forward: Callable[..., Any], *args: torch.Tensor, **layers: nn.Module
) -> tuple[Graph, QuantPlan]:
    graph = fold_batch_norm(capture(Functional(forward, **layers), args or (X,))).graph
    return graph, plan(graph, scheme)


def quantized(graph: Graph, decided: QuantPlan) -> list[str]:
    return [node.op for node in graph.nodes if node.name in decided.quantized]


def activations(decided: QuantPlan) -> list[str]:
    return sorted(str(ref) for ref in decided.activations)


def node_of(graph: Graph, op: str, which: int = 0) -> Node:
    return [node for node in graph.nodes if node.op == op][which]


# --- fusion ---


def test_a_convolution_and_its_activation_are_one(u8s8: QuantScheme) -> None:
    graph, decided = planned(u8s8, lambda m, x: m.b(F.relu6(m.n(m.a(x)))), a=conv(), n=nn.BatchNorm2d(4), b=conv())
    assert [[graph.by_name[name].op for name in chain] for chain in decided.fused] == [["conv2d", "hardtanh"]]
    result = graph.producers[node_of(graph, "conv2d", 1).tensors[0]].outputs[0]
    assert activations(decided) == sorted(["$args_0", str(result)])
    assert decided.kept_float == {}


def test_an_activation_read_twice_is_not_fused_away(u8s8: QuantScheme) -> None:
    """The convolution's own result is needed: it is quantized, and relu runs in float on it."""

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.a(x)
        return m.b(F.relu(y) + y)

    graph, decided = planned(u8s8, forward, a=conv(), b=conv())
    assert decided.fused == ()
    assert node_of(graph, "conv2d").outputs[0] in decided.activations
    assert decided.kept_float == {"relu": "scheme 'uint8/int8' has no quantized 'relu'"}


def test_a_pattern_whose_anchor_stays_in_float_takes_nobody_along(u8s8: QuantScheme, make_scheme: Any) -> None:
    scheme = make_scheme(
        "uint8",
        "int8",
        fused_patterns=(("conv2d", "sigmoid"),),
        overrides=(Override(module="a", keep_float=True, origin="recipe.yaml:3"),),
    )
    graph, decided = planned(scheme, lambda m, x: m.b(torch.sigmoid(m.a(x))), a=conv(), b=conv())
    assert decided.kept_float == {"conv2d": "kept in float by recipe.yaml:3"}
    assert quantized(graph, decided) == ["sigmoid", "conv2d"]


def test_a_follower_kept_in_float_is_cut_off(u8s8: QuantScheme) -> None:
    scheme = u8s8.with_overrides(Override(operator="relu", keep_float=True))
    graph, decided = planned(scheme, lambda m, x: m.b(F.relu(m.a(x))), a=conv(), b=conv())
    assert decided.fused == ()
    assert decided.kept_float == {"relu": "kept in float by an override"}
    assert node_of(graph, "conv2d").outputs[0] in decided.activations


def test_a_residual_add_has_quantized_operands_and_result(u8s8: QuantScheme) -> None:
    graph, decided = planned(u8s8, lambda m, x: m.c(F.relu(m.b(F.relu(m.a(x))) + x)), a=conv(), b=conv(), c=conv())
    assert set(decided.fused) == {("conv2d", "relu"), ("add", "relu_1")}
    add = node_of(graph, "add")
    assert all(ref in decided.activations for ref in add.tensors)
    assert add.outputs[0] not in decided.activations
    assert node_of(graph, "relu", 1).outputs[0] in decided.activations


# --- sharing ---


def test_concat_and_what_moves_codes_share_qparams(u8s8: QuantScheme) -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        left, right = F.relu(m.a(x)), F.max_pool2d(F.relu(m.b(x)), 3, 1, 1)
        return m.c(torch.cat([left, right], 1).permute(0, 1, 3, 2))

    graph, decided = planned(u8s8, forward, a=conv(), b=conv(), c=conv(8))
    (group,) = decided.groups
    assert group == {
        *node_of(graph, "relu").outputs,
        *node_of(graph, "relu", 1).outputs,
        *node_of(graph, "max_pool2d").outputs,
        *node_of(graph, "cat").outputs,
        *node_of(graph, "permute").outputs,
    }
    assert graph.inputs[0] not in group


def test_a_constant_in_a_concat_follows_the_activations(u8s8: QuantScheme) -> None:
    class Token(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.token = nn.Parameter(torch.randn(1, 1, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(torch.cat([self.token.expand(2, -1, -1), self.a(x)], 1))

    graph = capture(Token(), (torch.randn(2, 5, 4),)).graph
    decided = plan(graph, u8s8)
    (group,) = decided.groups
    token = node_of(graph, "cat").tensors[0]
    assert graph.is_constant(token)
    assert token in group
    assert decided.weights[token] == u8s8.activations


def test_a_concat_with_a_float_operand_stays_in_float(u8s8: QuantScheme) -> None:
    _, decided = planned(u8s8, lambda m, x: torch.cat([m.b(m.a(x)), x.sin()], 1).cos(), a=conv(), b=conv())
    assert decided.kept_float["cat"] == "some of its operands are in float"
    assert decided.groups == ()


def test_results_of_a_split_share_qparams_with_their_operand(u8s8: QuantScheme) -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        left, right = m.a(x).chunk(2, 1)
        return m.b(left) + m.c(right)

    graph, decided = planned(u8s8, forward, a=conv(4, 8), b=conv(), c=conv())
    (group,) = decided.groups
    chunk = node_of(graph, "chunk")
    assert group == {*chunk.outputs, *chunk.tensors}


# --- results of the network ---


def test_results_stay_in_float_also_behind_moves(u8s8: QuantScheme) -> None:
    graph, decided = planned(
        u8s8, lambda m, x: torch.cat([m.a(x).flatten(2), m.b(x).flatten(2)], 1), a=conv(), b=conv()
    )
    assert activations(decided) == ["$args_0"]
    assert quantized(graph, decided) == ["conv2d", "conv2d"]


def test_a_result_that_is_also_read_in_low_precision_is_quantized_once(u8s8: QuantScheme) -> None:
    def forward(m: Any, x: torch.Tensor) -> Any:
        y = m.a(x)
        return y, m.b(y)

    graph, decided = planned(u8s8, forward, a=conv(), b=conv())
    assert graph.outputs[0] in decided.activations
    assert graph.outputs[1] not in decided.activations


def test_results_are_quantized_when_the_scheme_says_so(make_scheme: Any) -> None:
    graph, decided = planned(
        make_scheme("int8", "int8", quantize_outputs=True), lambda m, x: m.a(x).flatten(1), a=conv()
    )
    assert graph.outputs[0] in decided.activations
    assert len(decided.groups) == 1


def test_outgoing_state_is_a_result_and_incoming_state_an_input(u8s8: QuantScheme) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = conv(8, 4)
            self.register_buffer("past", torch.zeros(1, 4, 8, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.past = self.a(torch.cat([x, self.past], 1))
            return self.past.mean()

    graph = capture(Recurrent(), (X,)).graph
    decided = plan(graph, u8s8)
    ((before, after),) = graph.state
    assert before not in decided.activations  # cat is no layer: only its result is read in codes
    assert after in decided.activations  # mean reads it in codes
    assert node_of(graph, "cat").outputs[0] in decided.activations


# --- geometry ---


def test_sampling_coordinates_stay_in_float(u8s8: QuantScheme) -> None:
    def forward(m: Any, x: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        offsets = m.offset(x).permute(0, 2, 3, 1)
        return m.a(F.grid_sample(x, grid * 2.0 + offsets, align_corners=False))

    graph, decided = planned(u8s8, forward, X, torch.randn(1, 8, 8, 2), offset=conv(4, 2), a=conv())
    places = geometry_nodes(graph)
    assert {"mul", "add", "permute"} <= places
    assert all(decided.kept_float[name] == "computes indices or coordinates" for name in ("mul", "add"))
    # The learned offset is a layer and runs in low precision; what it gives is a place and stays in float.
    assert node_of(graph, "conv2d").name in decided.quantized
    assert node_of(graph, "conv2d").outputs[0] not in decided.activations
    assert graph.inputs[1] not in decided.activations


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x, p: m.a(x[:, :, (p * 3.0 + 1.0).long()[:, None], :].squeeze(3)),
        lambda m, x, p: m.a(x.index_select(2, (p * 3.0 + 1.0).to(torch.int64))),
        lambda m, x, p: m.a(x.gather(2, (p * 3.0 + 1.0).floor().int().long().view(1, 1, 2, 1).expand(1, 4, 2, 8))),
        lambda m, x, p: m.a(x).scatter_add(
            2, (p * 3.0 + 1.0).long()[None, None, :, None].expand(1, 4, 2, 8), x[:, :, :2]
        ),
    ],
    ids=["index", "index_select", "gather", "scatter"],
)
def test_index_arithmetic_stays_in_float(forward: Callable[..., Any], u8s8: QuantScheme) -> None:
    graph, decided = planned(u8s8, forward, X, torch.tensor([0.3, 1.2]), a=conv())
    arithmetic = {node.name for node in graph.nodes if node.op in ("mul", "add", "floor")}
    assert arithmetic <= geometry_nodes(graph)
    assert not arithmetic & decided.quantized
    assert graph.inputs[1] not in decided.activations
    assert "conv2d" in quantized(graph, decided)


def test_a_tensor_that_is_a_value_and_a_place_is_no_geometry(u8s8: QuantScheme) -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = x * 2.0
        return m.a(y) + m.a(x.index_select(2, y[0, 0, 0].long().clamp(0, 7)))

    graph, decided = planned(u8s8, forward, a=conv())
    assert node_of(graph, "mul").outputs[0] in decided.activations


# --- overrides ---


def test_the_last_override_that_selects_wins(u8s8: QuantScheme) -> None:
    scheme = u8s8.with_overrides(
        Override(module="*", weights=INT4),
        Override(operator="conv2d", weights=INT8),
        Override(module="b", weights=INT4),
    )
    _, decided = planned(scheme, lambda m, x: m.c(m.b(m.a(x)).mean((2, 3))), a=conv(), b=conv(), c=nn.Linear(4, 2))
    formats = {str(ref): spec.format.name for ref, spec in decided.weights.items()}
    assert formats == {"a.weight": "int8", "b.weight": "int4", "c.weight": "int4"}


def test_a_module_glob_selects_what_lies_below(u8s8: QuantScheme) -> None:
    inner = nn.Sequential(conv(), nn.ReLU(), conv())
    scheme = u8s8.with_overrides(Override(module="stages.1", keep_float=True, origin="r.yaml:7"))
    graph, decided = planned(scheme, lambda m, x: m.stages(x), stages=nn.Sequential(conv(), inner))
    kept = [node for node in graph.nodes if node.name in decided.kept_float]
    assert {node.module_path for node in kept} == {"stages.1.0", "stages.1.1", "stages.1.2"}
    assert quantized(graph, decided) == ["conv2d"]


@pytest.mark.parametrize("codes_only", [True, False])
def test_what_is_only_divided_by_stays_in_float(codes_only: bool, u8s8: QuantScheme) -> None:
    scheme = replace(u8s8, codes_only_operators=frozenset({"add"} if codes_only else ()))
    graph, decided = planned(
        scheme, lambda m, x: m.b(m.a(x) / (m.c(x).transpose(2, 3) + 1e-5)), a=conv(), b=conv(), c=conv()
    )
    divisor = node_of(graph, "add").outputs[0]
    assert divisor not in decided.activations
    assert node_of(graph, "transpose").outputs[0] in decided.activations
    said = {node.op: decided.kept_float.get(node.name) for node in graph.nodes}
    assert (said.get("add") == "is divided by, and small codes would be zero") == codes_only


def test_a_divisor_that_a_layer_reads_as_well_is_in_codes(u8s8: QuantScheme) -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        below = m.a(x) + 1.0
        return x / below + m.b(below)

    graph, decided = planned(u8s8, forward, a=conv(), b=conv())
    assert node_of(graph, "add").outputs[0] in decided.activations


@pytest.mark.parametrize("target", ["a", "act"])
def test_an_override_of_any_member_of_a_chain_sets_its_result(target: str, u8s8: QuantScheme) -> None:
    scheme = u8s8.with_overrides(Override(module=target, activations=INT16))
    graph, decided = planned(scheme, lambda m, x: m.b(m.act(m.a(x))), a=conv(), act=nn.ReLU(), b=conv())
    assert decided.activations[node_of(graph, "relu").outputs[0]] == INT16
    expected = u8s8.activations if target == "act" else INT16  # the input is read by a alone
    assert decided.activations[graph.inputs[0]] == expected


def test_an_input_that_several_read_keeps_the_default(u8s8: QuantScheme) -> None:
    scheme = u8s8.with_overrides(Override(module="a", activations=INT16))
    graph, decided = planned(scheme, lambda m, x: m.a(x) + m.b(x), a=conv(), b=conv())
    assert decided.activations[graph.inputs[0]] == u8s8.activations


@pytest.mark.parametrize(("order", "winner"), [(("a", "b"), INT8), (("b", "a"), INT16)])
def test_in_a_shared_group_the_override_that_stands_last_decides_for_all(
    order: tuple[str, str], winner: QParamsSpec, u8s8: QuantScheme
) -> None:
    specs = {"a": INT16, "b": INT8}
    scheme = u8s8.with_overrides(*(Override(module=name, activations=specs[name]) for name in order))
    _, decided = planned(scheme, lambda m, x: m.c(torch.cat([m.a(x), m.b(x)], 1)), a=conv(), b=conv(), c=conv(8))
    (group,) = decided.groups
    assert all(decided.activations[ref] == winner for ref in group)


def test_in_a_shared_group_an_override_beats_the_default(u8s8: QuantScheme) -> None:
    for where in ({"module": "a"}, {"module": "b"}, {"operator": "cat"}):
        override = Override(**where, activations=INT16)
        _, decided = planned(
            u8s8.with_overrides(override),
            lambda m, x: m.c(torch.cat([m.a(x), m.b(x)], 1)),
            a=conv(),
            b=conv(),
            c=conv(8),
        )
        (group,) = decided.groups
        assert all(decided.activations[ref] == INT16 for ref in group)


def test_keeping_a_move_in_float_breaks_the_group(u8s8: QuantScheme) -> None:
    scheme = u8s8.with_overrides(Override(operator="cat", keep_float=True))
    graph, decided = planned(scheme, lambda m, x: m.c(torch.cat([m.a(x), m.b(x)], 1)), a=conv(), b=conv(), c=conv(8))
    assert decided.groups == ()
    assert node_of(graph, "cat").name not in decided.quantized


# --- layers ---


def test_one_head_on_several_levels_has_one_weight_and_a_bias_for_each(u8s8: QuantScheme) -> None:
    """torchao's X86 quantizer: `conv partition has more than one output node`."""

    def forward(m: Any, x: torch.Tensor) -> Any:
        levels = [m.a(x), F.max_pool2d(m.a(x), 2), F.max_pool2d(m.a(x), 4)]
        return [m.head(level).sum() for level in levels]

    graph, decided = planned(u8s8, forward, a=conv(), head=conv())
    heads = [node for node in graph.nodes if node.module_path == "head"]
    assert len(heads) == 3
    assert all(node.name in decided.quantized for node in heads)
    assert sum(str(ref) == "head.weight" for ref in decided.weights) == 1
    assert {decided.biases[node.name].input for node in heads} == {node.tensors[0] for node in heads}


def test_a_float_layer_on_a_shared_weight_leaves_it_to_the_other(u8s8: QuantScheme) -> None:
    tied = nn.Linear(4, 4)
    scheme = u8s8.with_overrides(Override(module="second", keep_float=True))
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    first.weight = second.weight = tied.weight
    _, decided = planned(scheme, lambda m, x: m.second(m.first(x)), torch.randn(2, 4), first=first, second=second)
    assert len(decided.weights) == 1
    assert len(decided.quantized) == 1


def test_addmm_and_matmul_find_their_weight(u8s8: QuantScheme) -> None:
    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 5))
            self.bias = nn.Parameter(torch.randn(5))
            self.left = nn.Parameter(torch.randn(3, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.left @ torch.addmm(self.bias, x, self.weight)

    graph = capture(Products(), (torch.randn(2, 4),)).graph
    decided = plan(graph, u8s8)
    assert {str(ref): spec.granularity for ref, spec in decided.weights.items()} == {
        "weight": Granularity.PER_CHANNEL,
        "left": Granularity.PER_CHANNEL,
    }
    assert [str(bias.bias) for bias in decided.biases.values()] == ["bias"]


def test_a_stack_of_constant_matrices_has_one_scale(u8s8: QuantScheme) -> None:
    """As learned queries fold to: ONNX Runtime's QLinearMatMul takes one zero point for all of them."""
    stack, matrix = torch.randn(2, 8, 5), torch.randn(8, 5)

    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("stack", stack)
            self.register_buffer("matrix", matrix)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x @ self.stack, x @ self.matrix

    decided = plan(capture(Products(), (torch.randn(2, 3, 8),)).graph, u8s8)
    said = {str(ref): spec.granularity for ref, spec in decided.weights.items()}
    assert set(said.values()) == {Granularity.PER_TENSOR, u8s8.weights.granularity} and len(said) == 2


def test_biases_stay_in_float_where_the_scheme_says_so(fp8: QuantScheme) -> None:
    _, decided = planned(fp8, lambda m, x: m.a(x), a=conv())
    assert decided.biases == {}


def test_integers_and_other_float_types_are_not_quantized(u8s8: QuantScheme) -> None:
    graph, decided = planned(u8s8, lambda m, x: (x.double() * 2.0 + 1.0).float() + (x > 0).long() * 3)
    assert decided.kept_float == {
        "mul": "computes in float64; only float32 is quantized",
        "add": "computes in float64; only float32 is quantized",
    } | {name: why for name, why in decided.kept_float.items() if "no quantized" in why}
    assert all(graph.tensors[ref].dtype == "float32" for ref in decided.activations)


# --- any graph ---

OPS = ["conv2d", "relu", "add", "cat", "reshape", "sin", "to_int", "gather", "mul"]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Random operators on random earlier tensors; shapes are of no interest to the plan."""

    def info(ref: TensorRef, dtype: str, kind: TensorKind) -> TensorInfo:
        return TensorInfo(ref=ref, shape=(1, 4, 4, 4), dtype=dtype, kind=kind)

    tensors = {TensorRef("", f"${i}"): "float32" for i in range(draw(st.integers(1, 2)))}
    infos = {ref: info(ref, "float32", TensorKind.INPUT) for ref in tensors}
    weights = [TensorRef("", f"w{i}") for i in range(2)]
    infos |= {ref: info(ref, "float32", TensorKind.PARAMETER) for ref in weights}
    nodes: list[Node] = []
    for number in range(draw(st.integers(1, 14))):
        op = draw(st.sampled_from(OPS))
        floats = [ref for ref, dtype in tensors.items() if dtype == "float32"]
        integers = [ref for ref, dtype in tensors.items() if dtype == "int64"]
        operands = [draw(st.sampled_from(floats))]
        if op in ("conv2d", "mul"):
            operands.append(draw(st.sampled_from(weights)))
        elif op in ("add", "cat"):
            operands.append(draw(st.sampled_from(floats + weights)))
        elif op == "gather":
            if not integers:
                continue
            operands.append(draw(st.sampled_from(integers)))
        result = TensorRef("", f"m{draw(st.integers(0, 2))}", number, 0)
        tensors[result] = "int64" if op == "to_int" else "float32"
        infos[result] = info(result, tensors[result], TensorKind.ACTIVATION)
        nodes.append(
            Node(name=f"n{number}", op=op, inputs=tuple(operands), outputs=(result,), module_path=result.module_path)
        )
    results = draw(st.lists(st.sampled_from(list(tensors)), min_size=1, max_size=3, unique=True))
    return Graph(
        nodes=tuple(nodes),
        tensors=infos,
        inputs=tuple(ref for ref in tensors if ref.module_path.startswith("$")),
        outputs=tuple(results),
    )


@st.composite
def overrides(draw: st.DrawFn) -> list[Override]:
    some = []
    for _ in range(draw(st.integers(0, 4))):
        where = draw(st.sampled_from([{"module": "m0"}, {"module": "m*"}, {"operator": "cat"}, {"operator": "conv2d"}]))
        some.append(
            Override(
                **where,
                keep_float=draw(st.booleans()) and draw(st.booleans()),
                activations=draw(st.sampled_from([None, INT16, INT8])),
                weights=draw(st.sampled_from([None, INT4])),
            )
        )
    return some


SCHEME = QuantScheme(
    name="any",
    activations=QParamsSpec(format=FORMATS["uint8"], symmetric=False),
    weights=QParamsSpec(format=FORMATS["int8"], symmetric=True),
    bias=BiasKind.INT32,
    quantized_operators=frozenset(["conv2d", "add", "mul"]),
    shared_qparams_operators=frozenset(["cat", "reshape", "gather"]),
    fused_patterns=(("conv2d", "relu"), ("add", "relu"), ("conv2d", "relu", "add")),
)


@settings(max_examples=300)
@given(graphs(), overrides(), st.booleans())
def test_any_plan_is_consistent(graph: Graph, exceptions: list[Override], outputs: bool) -> None:
    scheme = QuantScheme(**{**vars(SCHEME), "quantize_outputs": outputs}).with_overrides(*exceptions)
    decided = plan(graph, scheme)
    every = {**decided.activations, **decided.weights}
    assert not decided.activations.keys() & decided.weights.keys()
    assert all(graph.tensors[ref].dtype == "float32" for ref in every)
    assert all(graph.is_constant(ref) for ref in decided.weights)
    assert not any(graph.is_constant(ref) for ref in decided.activations)
    for group in decided.groups:
        assert all(every[ref] == every[min(group)] for ref in group)
    assert sum(map(len, decided.groups)) == len(set().union(*decided.groups)), "groups do not overlap"
    fused = [name for chain in decided.fused for name in chain]
    assert len(fused) == len(set(fused))
    inner = {ref for chain in decided.fused for name in chain[:-1] for ref in graph.by_name[name].outputs}
    assert not inner & every.keys()
    assert not decided.quantized & decided.kept_float.keys()
    places = geometry_nodes(graph)
    for node in graph.nodes:
        override = scheme.override_for(module_path=node.module_path, operator=node.op)
        if override and override.keep_float:
            assert node.name not in decided.quantized
        if node.name in places:
            assert not set(node.outputs) & every.keys()
        if node.name in decided.quantized and node.op == "conv2d":
            # What a layer reads is in codes, or inside its own chain, or a place.
            assert node.tensors[1] in decided.weights
    assert plan(graph, scheme) == decided, "the same graph, the same plan"


# --- scales that follow the data beside fixed ones ---

FOLLOWING = QParamsSpec(format=FORMATS["int8"], symmetric=True, dynamic=True)


@pytest.mark.parametrize("target", ["a", "act"])
def test_a_dynamic_override_of_any_member_of_a_chain_reaches_its_readers(target: str, u8s8: QuantScheme) -> None:
    scheme = u8s8.with_overrides(Override(module=target, activations=FOLLOWING))
    graph, decided = planned(scheme, lambda m, x: m.b(m.act(m.a(x))), a=conv(), act=nn.ReLU(), b=conv())
    assert decided.activations[node_of(graph, "relu").outputs[0]] == FOLLOWING


def test_codes_of_two_kinds_of_scales_are_not_moved_as_one(u8s8: QuantScheme) -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        a, b = m.a(x), m.b(x)
        return m.c(torch.cat([a, b], 1)) + m.d(b)

    scheme = u8s8.with_overrides(Override(module="b", activations=FOLLOWING))
    graph, decided = planned(scheme, forward, a=conv(), b=conv(), c=conv(8), d=conv())
    assert decided.kept_float == {"cat": "some of its operands have scales that follow the data"}
    a, b = node_of(graph, "cat").tensors
    assert (decided.activations[a], decided.activations[b]) == (u8s8.activations, FOLLOWING)
    assert decided.groups == ()


def test_a_moved_tensor_may_be_asked_to_follow_the_data(u8s8: QuantScheme) -> None:
    scheme = u8s8.with_overrides(Override(operator="flatten", activations=FOLLOWING))
    graph, decided = planned(scheme, lambda m, x: m.b(m.a(x).flatten(1)), a=conv(), b=nn.Linear(256, 4))
    flatten = node_of(graph, "flatten")
    assert decided.kept_float == {flatten.name: "its result has a scale that follows the data"}
    assert decided.activations[flatten.tensors[0]] == u8s8.activations
    assert decided.activations[flatten.outputs[0]] == FOLLOWING


def test_fixed_codes_are_moved_on_where_the_default_follows_the_data(u8s8: QuantScheme) -> None:
    scheme = replace(u8s8, activations=FOLLOWING, overrides=(Override(module="a", activations=u8s8.activations),))
    graph, decided = planned(scheme, lambda m, x: m.b(m.a(x).flatten(1)), a=conv(), b=nn.Linear(256, 4))
    flatten = node_of(graph, "flatten")
    assert decided.groups == (frozenset({*flatten.tensors, *flatten.outputs}),)
    assert decided.activations[flatten.outputs[0]] == u8s8.activations
