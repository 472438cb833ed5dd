"""What a search needs from outside: the network's builder, its data, its task. `experiments` provides it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from bitwright.hw_constraints.target_types import Target
from bitwright.nas.space import Candidate, Value
from bitwright.quant.scheme import QuantScheme

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Accuracy:
    """A score, and the ends of its 95 % interval over the choice of samples; None where its noise is not known."""

    value: float
    low: float | None = None
    high: float | None = None


NONE_SPARSE: Mapping[str, str] = MappingProxyType({})


class Workload(Protocol):
    """A family of networks with its task. Picklable: it travels to workers, which open the data themselves."""

    @property
    def target(self) -> Target:
        """The accelerator."""

    @property
    def scheme(self) -> QuantScheme:
        """How networks are quantized where a candidate does not say otherwise."""

    @property
    def runtime(self) -> str | None:
        """The backend that runs the target's artefacts on this machine; None where only others could."""

    @property
    def higher_is_better(self) -> bool:
        """The direction of `accuracy`."""

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """What accuracies follow from, by name: the data, the training, the metric. Scores of others do not mix."""

    def build(self, architecture: Mapping[str, Value]) -> torch.nn.Module:
        """A network with fresh weights, the same ones for the same architecture; {} is the user's own network."""

    def example(self, model: torch.nn.Module) -> tuple[Any, ...]:
        """Arguments of `forward` to capture and to measure with."""

    def train(
        self,
        model: torch.nn.Module,
        sparsity: Mapping[str, str] = NONE_SPARSE,
        go_on: Callable[[float], bool] | None = None,
    ) -> None:
        """Trains in place, shortly, from the weights that the network has; the same network becomes the same weights.

        Args:
            model: the network.
            sparsity: patterns of zeros (`qat.sparsity`) that the weights of modules get in the training, by path.
            go_on: asked now and then with the share of the training that is done; False ends it there. It may run the
                network, and leaves it in the mode that it was in.
        """

    def float_accuracy(self, model: torch.nn.Module) -> float:
        """The score of the network itself, in float; only asked for by searches with rungs."""

    def calibration(self, model: torch.nn.Module) -> Iterable[Any]:
        """Batches of arguments to calibrate with."""

    def accuracy(self, model: torch.nn.Module, artifact: Path) -> Accuracy:
        """The score of the exported file `artifact`, whose float origin is `model`."""


class Inherited(Protocol):
    """A trained supernet, whose weights candidates begin with (`nas.supernet.InheritedAccuracy`). Picklable."""

    def __call__(self, candidate: Candidate) -> float:
        """What the candidate scores with them, in float."""

    def network(self, candidate: Candidate) -> torch.nn.Module:
        """The candidate's own network with copies of its weights, in eval mode."""
