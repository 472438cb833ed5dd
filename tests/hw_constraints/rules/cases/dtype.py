from dataclasses import replace

from bitwright.hw_constraints.finding import Severity
from bitwright.hw_constraints.target import load_target
from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.formats import FORMATS
from bitwright.quant.graph import Graph
from bitwright.quant.plan import QuantPlan, plan
from bitwright.quant.scheme import Override


def double_inside() -> Graph:
    b = GraphBuilder()
    x = b.call("mul", b.input(1, 8), b.parameter(8, dtype="float64"), shape=(1, 8), dtype="float64")
    x = b.call("relu", x, shape=(1, 8), dtype="float64")
    return b.graph(b.call("to", x, shape=(1, 8), dtype="float32"))


def double_input() -> Graph:
    b = GraphBuilder()
    return b.graph(b.call("relu", b.input(1, 8, dtype="float64"), shape=(1, 8), dtype="float64"))


def complex_inside() -> Graph:
    b = GraphBuilder()
    return b.graph(b.call("fft_rfft", b.input(1, 8), shape=(1, 5), dtype="complex64"))


def net(dtype: str = "float32") -> Graph:
    b = GraphBuilder()
    x = b.input(1, 8, 16, 16, dtype=dtype)
    w = b.parameter(8, 8, 1, 1, dtype=dtype)
    y = b.call("conv2d", x, w, None, shape=(1, 8, 16, 16), dtype=dtype, module="stem")
    return b.graph(b.call("relu", y, shape=(1, 8, 16, 16), dtype=dtype))


def planned(target: str, **overrides: str) -> QuantPlan:
    scheme = load_target(target).scheme()
    specs = {
        what: replace(getattr(scheme, what), format=FORMATS[name], symmetric=True) for what, name in overrides.items()
    }
    return plan(net(), scheme.with_overrides(Override(module="stem", **specs)) if specs else scheme)


def activated(op: str = "silu") -> Graph:
    b = GraphBuilder()
    return b.graph(b.call(op, b.conv2d(b.input(1, 8, 16, 16), 8), shape=(1, 8, 16, 16)))


def index() -> Graph:
    b = GraphBuilder()
    table = b.parameter(100, 8)
    return b.graph(b.call("embedding", table, b.input(1, 4, dtype="int64"), shape=(1, 4, 8)))


BAD = [
    RuleCase(name="double-arises", target="x86-vnni", graph=double_inside(), lines=(1,), says="mul makes float64"),
    RuleCase(name="double-input", target="tensorrt-orin", graph=double_input(), lines=(1,), says="$x0 is float64"),
    RuleCase(name="complex", target="h200", graph=complex_inside(), lines=(1,), says="complex64"),
    RuleCase(name="half-where-only-float", target="x86-vnni", graph=net("float16"), lines=(1,), says="float16"),
    RuleCase(
        name="four-bit-weights",
        target="x86-vnni",
        graph=net(),
        plan=planned("x86-vnni", weights="int4"),
        lines=(1,),
        says="weights of conv2d planned as int4 symmetric per_channel | int8 symmetric per_channel",
        severity=Severity.ERROR,
    ),
    RuleCase(
        name="six-bits-stored-in-eight",
        target="x86-vnni",
        graph=net(),
        plan=planned("x86-vnni", weights="int6"),
        lines=(1,),
        says="weights of conv2d planned as int6, which runs as int8 | int8 symmetric per_channel",
        severity=Severity.WARNING,
    ),
    RuleCase(
        name="eight-bits-where-seven-saturate",
        target="x86-avx2",
        graph=net(),
        plan=planned("x86-vnni"),
        lines=(1,),
        says="weights of conv2d planned as int8 symmetric per_channel | int7",
        severity=Severity.ERROR,
    ),
    RuleCase(
        name="asymmetric-where-symmetric",
        target="tensorrt-orin",
        graph=net(),
        plan=planned("ethos-u85-1024"),
        lines=(1, 2),
        says="int8 asymmetric",
    ),
    RuleCase(name="fp8-on-integers", target="x86-vnni", graph=net(), plan=planned("h200"), lines=(1, 1), says="float8"),
]
BAD += [
    RuleCase(
        name="float-where-there-is-none",
        target="ethos-u85-1024",
        graph=activated(),
        plan=plan(activated(), load_target("ethos-u85-1024").scheme()),
        lines=(2,),
        says="silu is planned as one, and runs as sigmoid, mul",
        severity=Severity.WARNING,
    )
]


def kept_float(target: str) -> QuantPlan:
    return plan(net(), load_target(target).scheme().with_overrides(Override(module="stem", keep_float=True)))


BAD += [
    RuleCase(
        name="a-block-in-float-where-there-is-none",
        target="ethos-u85-1024",
        graph=net(),
        plan=kept_float("ethos-u85-1024"),
        lines=(1,),
        says="conv2d is planned in float (kept in float by an override) and runs on the host | int8 asymmetric "
        "per_tensor or int16 symmetric per_tensor: ethos-u85-1024 has no floating point",
        severity=Severity.ERROR,
    ),
]
GOOD = [
    RuleCase(name="a-block-in-float-where-there-is", target="x86-vnni", graph=net(), plan=kept_float("x86-vnni")),
    RuleCase(
        name="float-where-there-is",
        target="x86-vnni",
        graph=activated(),
        plan=plan(activated(), load_target("x86-vnni").scheme()),
    ),
    RuleCase(
        name="clipped-line",
        target="ethos-u85-1024",
        graph=activated("hardsigmoid"),
        plan=plan(activated("hardsigmoid"), load_target("ethos-u85-1024").scheme()),
    ),
    RuleCase(name="float32", target="ethos-u85-1024", graph=net()),
    RuleCase(name="half-on-a-gpu", target="tensorrt-orin", graph=net("float16")),
    RuleCase(name="indices", target="x86-vnni", graph=index()),
    RuleCase(name="its-own-plan", target="x86-avx2", graph=net(), plan=planned("x86-avx2")),
    RuleCase(
        name="int16-features",
        target="ethos-u85-1024",
        graph=net(),
        plan=plan(net(), load_target("ethos-u85-1024").scheme(activations="int16")),
    ),
]
