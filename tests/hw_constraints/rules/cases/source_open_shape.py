from bitwright.hw_constraints.source_code import SourceFunction
from bitwright.hw_constraints.testing import RuleCase
from bitwright.quant.capture import CaptureFailure

FAILURE = CaptureFailure(reason="GuardOnDataDependent", source=None, suggestion="torch.where", data_dependent=True)
TEXT = """\
def forward(self, x, y):
    mask = (x[..., 0] > 0) & torch.isfinite(y)
    y[mask] = self.mlp(x[mask])
    index = mask.nonzero()
    rows = torch.unique(index)
    return y, rows
"""
FINE = """\
def forward(self, x, y):
    mask = x[..., 0] > 0
    y = torch.where(mask, x[..., 1], y)
    order = [2, 0, 1]
    return y[:, order] + x[:, self.table]
"""


def written(text: str) -> SourceFunction:
    return SourceFunction(file="net.py", first_line=10, text=text, owner="Net")


BAD = [
    RuleCase(
        name="masks",
        target="x86-vnni",
        capture_failures=(FAILURE,),
        functions=(written(TEXT),),
        lines=(12, 13, 14),
        says="how many elements",
    ),
    RuleCase(
        name="where-alone",
        target="h200",
        capture_failures=(FAILURE,),
        functions=(written("def forward(self, x):\n    return torch.where(x > 0)\n"),),
        lines=(11,),
    ),
]
GOOD = [
    RuleCase(name="same-size", target="x86-vnni", capture_failures=(FAILURE,), functions=(written(FINE),)),
    RuleCase(name="captured", target="x86-vnni", functions=(written(TEXT),)),
]
