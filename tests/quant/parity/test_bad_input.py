"""What people bring that does not fit: each is said in one line, and where it can be, the comparison goes on."""

import importlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitwright.quant.errors import InputError
from bitwright.quant.parity import Inputs, LinkError, compare_chain, compare_links
from bitwright.quant.parity.dump import DumpLink
from bitwright.quant.parity.isolated import IsolatedLink
from bitwright.quant.parity.onnx_link import ReferenceLink
from bitwright.quant.parity.torch_links import CapturedLink, EagerLink

CRASHING = """
import os, signal
from bitwright.quant.parity.onnx_link import ReferenceLink


class Crashing(ReferenceLink):
    def _infer(self, session, names, feeds):
        if any("inner.2@0.0.0" in node.output for node in session.proto_.graph.node):
            os.kill(os.getpid(), signal.SIGSEGV)
        return super()._infer(session, names, feeds)
"""
X = [Inputs(args=(torch.arange(8.0).reshape(2, 4),))]


def errors(first: Any, second: Any) -> dict[str, str]:
    found = compare_links(EagerLink(first, name="a"), EagerLink(second, name="b"), X)
    return {} if found.agrees else {name: each.error for name, each in found.results.items()}


def test_results_are_joined_by_order_or_by_shape_whatever_their_names() -> None:
    assert errors(lambda x: {"p": x, "q": x + 1}, lambda x: {"u": x, "v": x + 1}) == {}
    assert errors(lambda x: (x, x[:, :3]), lambda x: {"u": x[:, :3], "v": x}) == {}  # each shape stands there once
    swapped = errors(lambda x: (x, x[:, :3]), lambda x: (x[:, :3], x))  # of equal names none is taken for another
    assert swapped["result[0]"] == "shape [2, 3], expected [2, 4]"


def test_results_that_cannot_be_joined_are_listed() -> None:
    assert errors(lambda x: (x, x), lambda x: x) == {
        "results": "2 results (result[0] [2, 4], result[1] [2, 4]) against 1 (result [2, 4])"
    }
    assert errors(lambda x: (x, x[:, :3]), lambda x: {"u": x, "v": x[:1]}) == {
        "results": "results of other shapes: result[0] [2, 4], result[1] [2, 3] against result['u'] [2, 4], "
        "result['v'] [1, 4]"
    }
    assert errors(lambda x: {"p": x}, lambda x: {"p": x.T}) == {"result['p']": "shape [4, 2], expected [2, 4]"}


def test_nan_in_one_is_a_finding_and_in_both_none() -> None:
    def holed(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x == 3, torch.nan, x)

    assert errors(holed, holed) == {}
    assert errors(holed, lambda x: x) == {"result": "1 elements are NaN and 0 infinite in one of the two only"}
    assert errors(lambda x: x, lambda x: x / (x != 3)) == {
        "result": "0 elements are NaN and 1 infinite in one of the two only"
    }


def test_results_without_elements_agree_and_of_other_shapes_do_not() -> None:
    assert errors(lambda x: (x, x[:0]), lambda x: (x, x[:0])) == {}
    assert errors(lambda x: {"p": x[:0]}, lambda x: {"p": x[:, :0]}) == {"result['p']": "shape [2, 0], expected [0, 4]"}


@pytest.mark.parametrize("noise", [torch.rand_like, torch.bernoulli, lambda x: torch.randperm(4)])
def test_random_numbers_are_seen_by_running_the_reference_twice(noise: Any) -> None:
    def drawn(x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"p": x * 2, "q": noise(torch.full_like(x, 0.5))}

    found = compare_links(EagerLink(drawn, name="a"), EagerLink(drawn, name="b"), X)
    assert found.unsteady == ("result['q']",) and list(found.results) == ["result['p']"] and found.agrees


def test_a_dump_with_missing_tensors(chain: Any, tmp_path: Path) -> None:
    """Of the first file the rest is compared; of a later one that lacks more, and of too few, it is said."""
    link = ReferenceLink(chain.float_file)
    names = [name for name in link.tensors if link.tensors[name].op]
    runs = [link.run(each, wanted=names).tensors for each in chain.inputs]
    outputs = [each.name for each in link.network.model.graph.output]
    for place, (run, kept) in enumerate(zip(runs, (names[1:], names[2:]), strict=True)):
        np.savez(tmp_path / f"{place}.npz", **{name: run[name] for name in kept})
    first, second = (tmp_path / f"{place}.npz" for place in range(2))
    alone = compare_links(link, DumpLink([first], link.tensors, outputs), chain.inputs[:1])
    assert alone.agrees and names[0] not in {each.tensor.name for each in alone.layers} and alone.not_joined[0] >= 1
    with pytest.raises(LinkError) as lacking:
        compare_links(link, DumpLink([first, second], link.tensors, outputs), chain.inputs)
    assert str(lacking.value) == f"{second}: lacks {names[1]!r}, which 0.npz has"
    with pytest.raises(LinkError) as few:
        compare_links(link, DumpLink([first], link.tensors, outputs), chain.inputs)
    assert str(few.value) == "dump 0.npz: 1 files for 2 inputs; give one for each input"


def test_what_is_no_dump(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"a\.npz: cannot be read as a dump of tensors: "):
        DumpLink([tmp_path / "a.npz"], {}, ())
    with pytest.raises(InputError, match=r"a\.bin: a dump of tensors ends in \.npz or \.safetensors"):
        DumpLink([tmp_path / "a.bin"], {}, ())


@pytest.mark.slow
def test_a_runtime_that_crashes_is_named_with_its_signal_and_its_layer(
    chain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crashing_runtime.py").write_text(CRASHING)
    monkeypatch.syspath_prepend(tmp_path)
    crashing = importlib.import_module("crashing_runtime").Crashing
    device = IsolatedLink("device", partial(crashing, chain.float_file))
    links = [CapturedLink(chain.folded), device, ReferenceLink(chain.float_file)]
    try:
        found = compare_chain(links, chain.inputs[:1])
    finally:
        device.close()
    told = "device: running it ended its process with signal SIGSEGV at inner.2@0.0.0 (relu"
    assert found.pairs[0].problem.startswith(told)
    assert found.pairs[1].agrees and found.pairs[1].first == links[0].name
