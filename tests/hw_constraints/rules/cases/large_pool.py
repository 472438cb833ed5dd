from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def pool(kernel: int, stride: int = 1, padding: int | None = None) -> Graph:
    b = GraphBuilder()
    x = b.conv2d(b.input(1, 8, 32, 32), 8)
    pad = kernel // 2 if padding is None else padding
    side = (32 + 2 * pad - kernel) // stride + 1
    windows = {"kernel_size": (kernel, kernel), "stride": (stride, stride), "padding": (pad, pad), "dilation": (1, 1)}
    return b.graph(b.call("max_pool2d", x, shape=(1, 8, side, side), **windows))


BAD = [
    RuleCase(name="thirteen", target="x86-vnni", graph=pool(13), lines=(2,), says="169 elements"),
    RuleCase(name="nine", target="ethos-u85-1024", graph=pool(9), lines=(2,), says="50 elements: 2 pools"),
]
GOOD = [
    RuleCase(name="small", target="x86-vnni", graph=pool(5)),
    RuleCase(name="strided", target="x86-vnni", graph=pool(9, 2)),
    RuleCase(name="without-padding", target="x86-vnni", graph=pool(9, 1, 0)),
]
