"""What a recipe names, opened when first asked for and shared by the stages: model, data, example inputs, target."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.experiments.datasets import Data, Split
from bitwright.experiments.entries import call_entry, entry_fingerprint, wrong_result
from bitwright.experiments.extensions import MODELS
from bitwright.experiments.models import ModelKind
from bitwright.experiments.open_data import open_data
from bitwright.experiments.recipe import ModelSection, Recipe
from bitwright.hw_constraints import target_files
from bitwright.hw_constraints.target import Target, load_target
from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Workbench:
    """See the module.

    Attributes:
        recipe: names everything.
        chosen: which rows calibrate, once that has been decided.
    """

    recipe: Recipe
    chosen: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def target(self) -> Target:
        """The target; its figures keep their sources."""
        return load_target(self.recipe.target)

    @cached_property
    def data(self) -> Data:
        """The data, opened."""
        return open_data(self.recipe.data)

    def new_model(self) -> torch.nn.Module:
        """The network in float, in eval mode: fresh from the recipe's seed, or with the weights that it names."""
        import torch

        torch.manual_seed(self.recipe.seed)
        return build_model(self.recipe.model)

    def arguments(self, model: torch.nn.Module, split: Split, *, batch: int, seed: int | None = None) -> Iterator[Any]:
        """The network's positional arguments, batch by batch."""
        from bitwright.experiments.inputs import arguments_of

        read = arguments_of(model, self.recipe.data.inputs)
        return (read(each) for each in self.data.loader(split, batch, seed))

    def calibration(self, model: torch.nn.Module) -> Iterator[Any]:
        """Batches of arguments that hold the recipe's number of calibration samples.

        Raises:
            InputError: there are fewer than `calibrate.min_samples`.
        """
        from bitwright.experiments.calibration_data import calibration_batches
        from bitwright.experiments.inputs import arguments_of

        return map(arguments_of(model, self.recipe.data.inputs), calibration_batches(self, model))

    def evaluation(self, model: torch.nn.Module, *, batch: int) -> Iterable[Any]:
        """Batches to score, as the loader gives them; without the samples that calibrate where the recipe asks so."""
        batches = self.data.loader(Split.EVALUATE, batch, None)
        if not self.recipe.evaluate.held_out:
            return batches
        from bitwright.experiments.held_out import HeldOut, row_hashes
        from bitwright.experiments.inputs import arguments_of

        calibrated = frozenset(each for arguments in self.calibration(model) for each in row_hashes(arguments))
        return HeldOut(batches, arguments_of(model, self.recipe.data.inputs), calibrated)

    def example(self, model: torch.nn.Module) -> tuple[Any, ...]:
        """The arguments that the network is captured and measured with.

        Raises:
            InputError: the loader gives nothing, or an entry returned something else than arguments.
        """
        from bitwright.experiments.inputs import first_rows

        asked = self.recipe.example_inputs
        if asked.entry is not None:
            result = call_entry("example_inputs.entry", asked.entry)
            if not isinstance(result, tuple):
                raise wrong_result("example_inputs.entry", asked.entry, result, "a tuple of forward's arguments")
            return result
        for arguments in self.arguments(model, Split.CALIBRATE, batch=asked.batch):
            return first_rows(arguments, asked.batch)
        raise InputError("data: the calibration split is empty; the network cannot be captured without an example")

    def runtimes(self, asked: tuple[str, ...] | None) -> tuple[str, ...]:
        """The runtimes to use: those asked for, else those of the target that are installed here.

        Raises:
            InputError: a runtime that was asked for cannot be used here.
        """
        from bitwright.hw_constraints.backends import get_backend, list_backends

        if asked is None:
            known = [get_backend(name) for name in self.target.artifact.runtimes if name in list_backends()]
            # What the chain exports is ONNX: a runtime that reads other files waits for an exporter of its own.
            return tuple(each.name for each in known if "onnx" in each.reads and each.available() is None)
        for name in asked:
            require_runtime(name)
        return asked

    def runtimes_or_simulator(self) -> tuple[tuple[str, ...], str]:
        """The runtimes to score on, and what to add to their names.

        Where none of the target's runtimes is here, ONNX Runtime computes the same Q/DQ file on the CPU: the target's
        numbers, not its speed.
        """
        runtimes = self.runtimes(self.recipe.prove.runtimes)
        return (runtimes, "") if runtimes else (("onnxruntime",), f", computing {self.target.id}'s numbers")

    @property
    def higher_is_better(self) -> bool:
        """The direction of the metric that counts."""
        return self.recipe.evaluate.entry is None or self.recipe.evaluate.direction == "higher"

    @cached_property
    def target_fingerprint(self) -> str:
        """Changes with what the target's file says, the files that it extends included."""
        data, _ = target_files.read(Path(self.target.file))
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    @cached_property
    def model_fingerprint(self) -> str:
        """Changes with the file of the model's entry and with the weights that the recipe names."""
        section = self.recipe.model
        parts = [entry_fingerprint(section.entry) if section.entry is not None else f"kind {section.kind}"]
        if section.weights is not None and Path(section.weights).is_file():
            with Path(section.weights).open("rb") as file:
                parts.append(hashlib.file_digest(file, "sha256").hexdigest())
        return " ".join(parts)


def build_model(section: ModelSection) -> torch.nn.Module:
    """The network that a section names, in eval mode, from the random state as it is or with the section's weights.

    Raises:
        InputError: the entry returns something else, or the weights are of another network.
    """
    import torch

    if section.kind is not None:
        kind: ModelKind = MODELS.load(section.kind)
        model = kind.build(kind.settings.model_validate(section.settings))
    else:
        assert section.entry is not None
        model = call_entry("model.entry", section.entry, **section.settings.get("arguments", {}))
        if not isinstance(model, torch.nn.Module):
            raise wrong_result("model.entry", section.entry, model, "a torch.nn.Module")
    if section.weights is not None:
        load_weights(model, Path(section.weights))
    return model.eval()


def require_runtime(name: str) -> None:
    """Stops where a runtime cannot be used.

    Raises:
        MissingExtraError: it is not installed; the message is the command that installs it.
        InputError: it is unknown, or cannot be used here.
    """
    from bitwright.hw_constraints.backends import get_backend

    backend = get_backend(name)
    reason = backend.available()
    if reason is not None:
        backend.version()
        raise InputError(f"runtime {name!r} cannot be used here: {reason}")


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Loads a state dict from .safetensors, or from a file of `torch.save` without running code from it.

    Raises:
        InputError: no such file, not a file of weights, or weights of another network.
    """
    import pickle

    import torch

    if not path.is_file():
        raise InputError(f"model.weights = {str(path)!r}; no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"model.weights = {str(path)!r}: not a file of weights only ({reason})") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"model.weights = {str(path)!r}: weights of another network: {reason[:400]}") from error
