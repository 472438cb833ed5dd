from bitwright.hw_constraints.source_code import SourceFunction
from bitwright.hw_constraints.testing import RuleCase
from bitwright.quant.capture import CaptureFailure

FAILURE = CaptureFailure(reason="forward assigns self.memory", source=None, suggestion="register_buffer")
TEXT = """\
def forward(self, x):
    x = self.conv(x) + self.memory
    self.memory = x
    return x
"""
REGISTERED = TEXT.replace("self.memory = x", "self.memory.copy_(x)")
COUNTED = TEXT.replace("self.memory = x", "self.height = x.shape[2]")


def written(text: str) -> SourceFunction:
    return SourceFunction(file="net.py", first_line=10, text=text, owner="Net")


BAD = [
    RuleCase(
        name="attribute",
        target="x86-vnni",
        capture_failures=(FAILURE,),
        functions=(written(TEXT),),
        lines=(12,),
        says="keeps a tensor in an attribute",
    ),
    RuleCase(
        name="a-part-of-it",
        target="h200",
        capture_failures=(FAILURE,),
        functions=(written(TEXT.replace("self.memory = x", "self.memory = x[:, :4].detach()")),),
        lines=(12,),
    ),
]
GOOD = [
    RuleCase(name="buffer", target="x86-vnni", capture_failures=(FAILURE,), functions=(written(REGISTERED),)),
    RuleCase(name="a-number", target="x86-vnni", capture_failures=(FAILURE,), functions=(written(COUNTED),)),
    RuleCase(name="captured", target="x86-vnni", functions=(written(TEXT),)),
]
