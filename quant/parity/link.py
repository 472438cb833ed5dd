"""A link of the chain from the user's network to the device: a named thing that runs, and what flows in it.

Tensors are known by the value names of our own files (`value_name` of a `TensorRef`); links whose tensors have other
names are joined by structure (`joining.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy.typing as npt

from bitwright.quant.errors import InputError
from bitwright.quant.integer.codes import Grid
from bitwright.quant.parity.results import Inputs
from bitwright.quant.parity_measures.rounding import Rounding

Array = npt.NDArray[Any]


class LinkError(InputError):
    """A link cannot run: its runtime refuses the network, or ended with it. The others go on."""


class LinkCrash(LinkError):
    """The link's process has ended while it ran."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LinkTensor:
    """A tensor that a link can show.

    Attributes:
        name: of the tensor.
        op: what makes it, in the link's own words; empty for an input of the network.
        reads: the tensors that it is made from, constants left out.
        shape: as far as the link tells; None for a dimension that is open, or for the whole.
        grid: the codes that its readers see it in; None for real values.
        rounding: how its operator rounds; None where nobody knows.
        weight_noise: the power that its operator's weights lose by their rounding to codes, of their own power.
        module_path: the module whose forward makes it, where it is known.
        source: the user's line, where it is known.
        is_opaque: whether it leaves a part whose inside the link does not show (a delegate, a compiled subgraph): only
            its values tell which tensor of another link it is.
    """

    name: str
    op: str = ""
    reads: tuple[str, ...] = ()
    shape: tuple[int | None, ...] | None = None
    grid: Grid | None = None
    rounding: Rounding | None = None
    weight_noise: float = 0.0
    module_path: str = ""
    source: str = ""
    is_opaque: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """What one run gave.

    Attributes:
        outputs: the results by name, in the link's order; of structured results every tensor. A run that was given
            tensors may leave out what nobody asked for.
        tensors: the inner tensors that were asked for, as their readers see them (codes as real values).
        unrounded: what those in codes were before they were rounded, as far as the link can tell.
        state: what the network remembers now, by the names that `Inputs.state` has.
    """

    outputs: Mapping[str, Array]
    tensors: Mapping[str, Array] = field(default_factory=dict)
    unrounded: Mapping[str, Array] = field(default_factory=dict)
    state: Mapping[str, Array] = field(default_factory=dict)


class Link(Protocol):
    """One form of the network, ready to run.

    Attributes:
        name: what reports call it; each link of a chain has its own.
    """

    name: str

    @property
    def tensors(self) -> Mapping[str, LinkTensor]:
        """What it can show, in an order in which it can run; empty for what only has results."""

    @property
    def takes_tensors(self) -> bool:
        """Whether `run` obeys `given`."""

    @property
    def replaced(self) -> Mapping[str, str]:
        """Tensors of earlier forms that this one has under another name, by the earlier name."""

    def run(
        self,
        inputs: Inputs,
        *,
        wanted: Collection[str] = (),
        given: Mapping[str, Array] | None = None,
        nudge: bool = False,
    ) -> Recording:
        """Runs once, from the state that the inputs name.

        Args:
            inputs: the arguments of the user's `forward`.
            wanted: names of tensors to record, each as this link computes it.
            given: what readers of these tensors get in place of what the link computes, on the link's own grids; so
                every layer is run on the inputs of another link, all in one run.
            nudge: whether to add errors of rounding to every value, drawn at random; a link that cannot reach its inner
                values adds them to its inputs and to what is given. What comes of them tells how such errors grow.

        Raises:
            LinkError: it cannot run.
        """
