from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph

U85 = "ethos-u85-1024"


def one(op: str, before: tuple[int | None, ...], after: tuple[int | None, ...], **attributes: object) -> Graph:
    b = GraphBuilder()
    return b.graph(b.call(op, b.input(*before), shape=after, **attributes))


def grouped(channels: int, groups: int) -> Graph:
    b = GraphBuilder()
    return b.graph(b.conv2d(b.input(1, channels, 8, 8), channels, groups=groups))


def linear(features: int, out: int) -> Graph:
    b = GraphBuilder()
    return b.graph(b.call("linear", b.input(1, features), b.parameter(out, features), None, shape=(1, out)))


def transposed(kernel: int, padding: int, size: int) -> Graph:
    b = GraphBuilder()
    weight = b.parameter(4, 4, kernel, kernel)
    attributes = {"stride": (2, 2), "padding": (padding, padding), "dilation": (1, 1), "groups": 1}
    return b.graph(
        b.call("conv_transpose2d", b.input(1, 4, 8, 8), weight, None, shape=(1, 4, size, size), **attributes)
    )


IMAGE, POOLED = (1, 8, 300, 300), (1, 8, 1, 1)
BAD = [
    RuleCase(name="max-pool", target=U85, graph=one("max_pool2d", IMAGE, POOLED, kernel_size=(300, 300)), lines=(1,)),
    RuleCase(
        name="padded-average-pool",
        target=U85,
        graph=one("avg_pool2d", (1, 8, 32, 32), (1, 8, 32, 32), kernel_size=(9, 9), stride=(1, 1), padding=(4, 4)),
        lines=(1,),
        says="kernel_h = 9",
    ),
    RuleCase(name="mean-batch", target=U85, graph=one("mean", (2, 8, 4, 4), (2, 8), dim=(2, 3)), lines=(1,)),
    RuleCase(name="mean-axis", target=U85, graph=one("mean", (1, 8, 4096), (1, 8), dim=(-1,)), lines=(1,)),
    RuleCase(name="softmax", target=U85, graph=one("softmax", (1, 65536, 4), (1, 65536, 4), dim=-1), lines=(1,)),
    RuleCase(
        name="bilinear-by-three",
        target=U85,
        graph=one("upsample_bilinear2d", (1, 8, 8, 8), (1, 8, 24, 24), align_corners=False),
        lines=(1,),
        says="scale_h = 3",
    ),
    RuleCase(name="rank", target=U85, graph=one("permute", (1,) * 9, (1,) * 9, dims=tuple(range(9))), lines=(1,)),
    RuleCase(name="gather", target=U85, graph=one("index_select", (1, 8), (1, 4), dim=-1), lines=(1,), says="axis = 1"),
    RuleCase(name="odd-transposed", target=U85, graph=transposed(3, 0, 19), lines=(1,), says="TRANSPOSE_CONV"),
    RuleCase(name="many-taps", target=U85, graph=linear(65537, 8), lines=(1,), says="8323072"),
    RuleCase(
        name="uneven-adaptive-pool",
        target="x86-vnni",
        graph=one("adaptive_avg_pool2d", (1, 8, 32, 32), (1, 8, 5, 5), output_size=(5, 5)),
        lines=(1,),
        says="divides",
    ),
    RuleCase(name="groups", target="tensorrt-orin", graph=grouped(24, 12), lines=(1,), says="channels_per_group = 2"),
    RuleCase(name="fp8-gemm", target="h200", graph=linear(1280, 1000), lines=(1,), says="out_features = 1000"),
]
GOOD = [
    RuleCase(name="max-pool", target=U85, graph=one("max_pool2d", IMAGE, POOLED, kernel_size=(2, 2))),
    RuleCase(
        name="unpadded-average-pool",
        target=U85,
        graph=one("avg_pool2d", (1, 8, 32, 32), (1, 8, 24, 24), kernel_size=(9, 9), stride=(1, 1), padding=(0, 0)),
    ),
    RuleCase(
        name="global-pool", target="x86-vnni", graph=one("adaptive_avg_pool2d", IMAGE, POOLED, output_size=(1, 1))
    ),
    RuleCase(name="bilinear", target=U85, graph=one("upsample_bilinear2d", (1, 8, 8, 8), (1, 8, 16, 16))),
    RuleCase(name="same", target=U85, graph=transposed(4, 1, 16)),
    RuleCase(name="valid", target=U85, graph=transposed(3, 0, 17)),
    RuleCase(name="depthwise", target="tensorrt-orin", graph=grouped(24, 24)),
    RuleCase(name="fp8-gemm", target="h200", graph=linear(1280, 1024)),
    RuleCase(name="open-batch-is-undecided", target=U85, graph=one("mean", (None, 8, 4, 4), (None, 8), dim=(2, 3))),
]
