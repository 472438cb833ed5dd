from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def net(op: str, **attributes: object) -> Graph:
    b = GraphBuilder()
    x = b.conv2d(b.input(1, 8, 16, 16), 8)
    y = b.call(op, x, shape=(1, 8, 16, 16), line=f"y = F.{op}(x)", **attributes)
    return b.graph(y)


def transposed() -> Graph:
    b = GraphBuilder()
    x = b.input(1, 8, 16, 16)
    y = b.call("conv_transpose2d", x, b.parameter(8, 4, 2, 2), shape=(1, 4, 32, 32), stride=(2, 2), module="neck.up")
    return b.graph(y)


def inverse() -> Graph:
    b = GraphBuilder()
    pose = b.input(1, 4, 4)
    return b.graph(b.call("linalg_inv", pose, shape=(1, 4, 4), line="inv = torch.linalg.inv(pose)"))


def constant_work() -> Graph:
    b = GraphBuilder()
    x = b.input(1, 4, 4)
    scale = b.call("linalg_inv", b.parameter(4, 4), shape=(4, 4))
    return b.graph(b.call("add", x, scale, shape=(1, 4, 4)))


def fused_norm() -> Graph:
    b = GraphBuilder()
    x = b.conv2d(b.input(1, 8, 16, 16), 8)
    x = b.call("batch_norm", x, b.parameter(8), b.parameter(8), shape=(1, 8, 16, 16))
    return b.graph(b.call("relu", x, shape=(1, 8, 16, 16)))


def lone_norm() -> Graph:
    b = GraphBuilder()
    x = b.input(1, 8, 16, 16)
    x = b.call("instance_norm", x, shape=(1, 8, 16, 16), line="x = self.norm(x)", module="norm")
    return b.graph(b.conv2d(x, 8))


def mask() -> Graph:
    b = GraphBuilder()
    x = b.input(1, 4, 4)
    ones = b.call("ones_like", x, shape=(1, 4, 4))
    mask = b.call("tril", ones, shape=(1, 4, 4))
    return b.graph(b.call("mul", x, mask, shape=(1, 4, 4)))


def integers() -> Graph:
    b = GraphBuilder()
    index = b.input(1, 8, dtype="int64")
    return b.graph(b.call("bitwise_and", index, index, shape=(1, 8), dtype="int64"))


def rolled(*, on_the_host: bool) -> Graph:
    b = GraphBuilder()
    x = b.conv2d(b.input(1, 8, 16, 16), 8)
    y = b.call("sin" if on_the_host else "relu", x, shape=(1, 8, 16, 16))
    return b.graph(b.call("roll", y, shape=(1, 8, 16, 16), shifts=(1,), dims=(3,)))


BAD = [
    RuleCase(name="move", target="orin-dla", graph=rolled(on_the_host=False), lines=(3,), says="roll: runs on"),
    RuleCase(name="moves-what-the-host-has", target="orin-dla", graph=rolled(on_the_host=True), lines=(2,), says="sin"),
    RuleCase(name="on-the-host", target="ethos-u85-1024", graph=net("softplus"), lines=(2,), says="processor beside"),
    RuleCase(name="supported-twin", target="ethos-u85-1024", graph=net("mish"), lines=(2,), says="hardswish"),
    RuleCase(name="norm-alone", target="ethos-u85-1024", graph=lone_norm(), lines=(1,), says="instance_norm: runs on"),
    RuleCase(name="macs-in-float", target="x86-vnni", graph=transposed(), lines=(1,), says="upsample with nearest"),
    RuleCase(name="macs-in-float-fp8", target="h200", graph=transposed(), lines=(1,), says="floating point"),
    RuleCase(name="not-in-onnx", target="tensorrt-orin", graph=inverse(), lines=(1,), says="closed form"),
]
GOOD = [
    RuleCase(name="listed", target="ethos-u85-1024", graph=net("hardswish")),
    RuleCase(name="float-without-macs", target="x86-vnni", graph=net("silu")),
    RuleCase(name="inside-a-chain", target="ethos-u85-1024", graph=fused_norm()),
    RuleCase(name="transposed-where-it-runs", target="tensorrt-orin", graph=transposed()),
    RuleCase(name="known-before-it-runs", target="x86-vnni", graph=constant_work()),
    RuleCase(name="taken-apart", target="ethos-u85-1024", graph=net("silu")),
    RuleCase(name="from-the-shape-alone", target="ethos-u85-1024", graph=mask()),
    RuleCase(name="integers-only", target="ethos-u85-1024", graph=integers()),
]
