from bitwright.hw_constraints.testing import GraphBuilder, RuleCase
from bitwright.quant.graph import Graph


def norm(op: str, dtype: str, **attributes: object) -> Graph:
    b = GraphBuilder()
    return b.graph(b.call(op, b.input(1, 8, dtype=dtype), shape=(1, 8), dtype=dtype, **attributes))


BAD = [
    RuleCase(
        name="add", target="tensorrt-orin", graph=norm("add", "float16", other=1e-8), lines=(1,), says="1e-08 of add"
    ),
    RuleCase(name="layer-norm", target="h200", graph=norm("layer_norm", "float16", eps=1e-12), lines=(1,)),
]
GOOD = [
    RuleCase(name="float32", target="tensorrt-orin", graph=norm("layer_norm", "float32", eps=1e-12)),
    RuleCase(name="large-enough", target="tensorrt-orin", graph=norm("layer_norm", "float16", eps=1e-5)),
    RuleCase(name="zero", target="tensorrt-orin", graph=norm("hardtanh", "float16", min_val=0.0, max_val=6.0)),
]
