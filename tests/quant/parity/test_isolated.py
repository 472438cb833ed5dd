"""A runtime that crashes is a finding with its signal; what comes behind it goes on."""

import operator
import os
import signal
from functools import partial
from typing import Any

import pytest

from bitwright.quant.parity import EXACT, Inputs, LinkError, compare_chain
from bitwright.quant.parity.isolated import IsolatedLink
from bitwright.quant.parity.onnx_link import ReferenceLink
from bitwright.quant.parity.torch_links import CapturedLink, EagerLink


def test_what_an_isolated_link_gives_is_what_the_link_gives(chain: Any) -> None:
    isolated = IsolatedLink("file", partial(ReferenceLink, chain.float_file))
    try:
        found = compare_chain([CapturedLink(chain.folded), isolated], chain.inputs[:1])
        direct = compare_chain([CapturedLink(chain.folded), ReferenceLink(chain.float_file)], chain.inputs[:1])
    finally:
        isolated.close()
    errors = [[layer.own.error for layer in pair.layers if layer.own] for pair in (*found.pairs, *direct.pairs)]
    assert found.agrees and errors[0] == errors[1] and len(errors[0]) > 5 and EXACT < 1e-4


@pytest.mark.parametrize(
    ("function", "argument", "end"),
    [(signal.raise_signal, int(signal.SIGSEGV), "signal SIGSEGV"), (os._exit, 3, "exit code 3")],
)
def test_a_crash_is_said_and_the_rest_goes_on(function: Any, argument: int, end: str) -> None:
    device = IsolatedLink("device", partial(EagerLink, function))
    last = IsolatedLink("last", partial(EagerLink, operator.neg))
    try:
        found = compare_chain([EagerLink(operator.neg), device, last], [Inputs(args=(argument,))])
    finally:
        device.close()
        last.close()
    assert found.pairs[0].problem == f"device: running it ended its process with {end}"
    assert found.pairs[1].agrees and found.pairs[1].first == "eager"


def test_an_error_inside_is_an_error_outside() -> None:
    link = IsolatedLink("wrong", partial(EagerLink, len))
    with pytest.raises(LinkError, match="TypeError"):
        link.run(Inputs(args=(3,)))
    link.close()
