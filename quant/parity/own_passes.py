"""What Bitwright itself makes of a network, step by step, as links: the capture, and what makes it easier to quantize.

Between these only results can be compared: a rewrite is free to give inner tensors other values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from bitwright.quant.capture import capture
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.parity.link import Link, LinkTensor
from bitwright.quant.parity.torch_links import CapturedLink, EagerLink
from bitwright.quant.ptq import quantize
from bitwright.quant.scheme import QuantScheme


class ResultsLink(CapturedLink):
    """A captured network of which only results are to be compared."""

    takes_tensors = False

    @property
    def tensors(self) -> Mapping[str, LinkTensor]:
        """None."""
        return {}


class _Exported(torch.nn.Module):
    """A module of `torch.export`, which refuses `eval()`: it is in that mode for good."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def train(self, mode: bool = True) -> _Exported:
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


def capture_links(model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> list[Link]:
    """The module, and behind each step of its capture: exported, functional, in one spelling, constants folded.

    Raises:
        CaptureError: it cannot be captured.
    """
    steps: dict[str, Any] = {}
    captured = capture(model, args, kwargs, watch=steps.__setitem__)
    return [
        EagerLink(model),
        EagerLink(_Exported(steps["exported"]), name="exported by torch"),
        EagerLink(_Exported(steps["functional"]), name="functional (functionalize, decompositions)"),
        ResultsLink(steps["canonical"], "canonical (canonicalize)"),
        ResultsLink(captured, "captured (fold_constants)"),
    ]


def preparation_links(captured: CapturedModel, scheme: QuantScheme, batches: Iterable[Any], **asked: Any) -> list[Link]:
    """A captured network, and behind each rewrite that quantizing makes of it before its plan.

    Args:
        captured: the network.
        scheme: the formats.
        batches: calibration data; as many as the preparations look at are enough.
        **asked: `equalization` and `preparations` of `ptq.quantize`.

    Raises:
        InputError: as of `ptq.quantize`.
    """
    links: list[Link] = [ResultsLink(captured)]
    quantize(
        captured,
        scheme,
        batches,
        bias_correction=False,
        watch=lambda name, network: links.append(ResultsLink(network, name)),
        **asked,
    )
    return links
