from bitwright.hw_constraints.source_code import SourceFunction
from bitwright.hw_constraints.testing import RuleCase
from bitwright.quant.capture import CaptureFailure
from bitwright.quant.graph import SourceLine

FAILURE = CaptureFailure(
    reason="GuardOnDataDependentSymNode",
    source=SourceLine("net.py", 12, "if x.mean() > 0:"),
    suggestion="torch.where",
    data_dependent=True,
)
TEXT = """\
def forward(self, x, counts, use_aux: bool = False, prior=None):
    steps = int(counts.max())
    if x.mean() > 0:
        x = x * 2
    for _ in range(steps):
        x = self.step(x)
    while x.abs().sum() > 1:
        x = x / 2
    scale = x.max().item()
    return x * scale
"""
REDUCED = """\
def forward(self, x):
    valid = (x > 0).any()
    x = x + 1
    if not valid:
        x = -x
    return x
"""
FINE = """\
def forward(self, x, use_aux: bool = False, prior=None):
    if use_aux and prior is not None:
        x = x + prior
    if x.shape[0] > 1 or self.training or len(x) > 3:
        x = x[:1]
    for level in range(x.size(1)):
        x = self.step(x, level)
    return float(self.scale) * x
"""


def written(text: str) -> SourceFunction:
    return SourceFunction(file="net.py", first_line=10, text=text, owner="Net")


BAD = [
    RuleCase(
        name="everything-behind-the-first",
        target="x86-vnni",
        capture_failures=(FAILURE,),
        functions=(written(TEXT),),
        lines=(11, 14, 16, 18),
        says="read into Python",
    ),
    RuleCase(
        name="a-branch-on-a-reduction",
        target="h200",
        capture_failures=(FAILURE,),
        functions=(written(REDUCED),),
        lines=(13,),
        says="which branch",
    ),
]
GOOD = [
    RuleCase(name="known-before", target="x86-vnni", capture_failures=(FAILURE,), functions=(written(FINE),)),
    RuleCase(name="captured", target="x86-vnni", functions=(written(TEXT),)),
]
