"""Quantization-aware training in the `Trainer` of Hugging Face's transformers, and models that become smaller there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.qat.batches import Arguments, default_arguments
from bitwright.qat.callback import QATCallback
from bitwright.qat.checkpoint import FORMAT, read_whole, write_whole
from bitwright.quant.errors import MissingExtraError

try:
    from transformers import TrainerCallback, default_data_collator
except ImportError as missing:
    raise MissingExtraError("QATTrainerCallback", "transformers") from missing

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bitwright.qat.sparsity import Pruning, PruningReport, Sparsity, SparsityReport

# What a schedule remembers of single weights; all else is in the model's own checkpoint.
_FILE = "bitwright_qat.pt"
# Samples of a data set that are calibrated together.
_TOGETHER = 32
_LABELS = ("labels", "label", "label_ids")


class QATTrainerCallback(TrainerCallback):  # type: ignore[misc]
    """Trains the `Trainer`'s model in the number formats of its target.

        trainer = Trainer(..., callbacks=[QATTrainerCallback(target="x86-vnni", calibration=train, path="model.onnx")])

    It attaches when the `Trainer` is made: before its optimizer is, and before a checkpoint is loaded. Scales are in
    the `Trainer`'s own groups, but do not decay.

    Args:
        calibration: the training data set (of mappings), or a list or loader of batches; labels are left out.
        path: where the artefact is written when training has ended; the model is a float network again then. None
            leaves it as it is trained, and `qat.finish()` to the user.
        options: as `QATCallback` takes them: `target`, `weights`, `schedule` and others.

    Attributes:
        qat: the callback in force; None before the `Trainer` is made.
    """

    def __init__(self, *, calibration: Iterable[Any], path: str | Path | None = None, **options: Any) -> None:
        self.calibration, self.path, self.options = calibration, path, options
        self.qat: QATCallback | None = None

    def on_init_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Attaches."""
        options = {"arguments": _without_labels(default_arguments(model)), **self.options}
        batches = _batches(self.calibration, options.get("calibration_samples", 200))
        self.qat = QATCallback(model, None, calibration=batches, **options)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Adds to the checkpoint what neither model nor optimizer hold."""
        if self.qat is not None and state.is_world_process_zero and self.qat.scheduled.state_dict():
            write_whole(_place(args, state), {"format": FORMAT, "callback": self.qat.state_dict()})

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Goes on where a resumed checkpoint was, which the model has told of already."""
        if self.qat is not None and state.global_step and _place(args, state).exists():
            self.qat.load_state_dict(read_whole(_place(args, state))["callback"])

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Writes the artefact."""
        if self.qat is not None and self.path is not None:
            self.qat.finish(self.path)
            self.qat = None


class SmallerTrainerCallback(TrainerCallback):  # type: ignore[misc]
    """Makes the `Trainer`'s model smaller while it trains: by `Pruning`, or by `Sparsity`.

        smaller = SmallerTrainerCallback(lambda model, optimizer: Sparsity(model, optimizer, pattern="2:4"))
        Trainer(..., callbacks=[smaller]).train()

    Channels leave in a training of their own: train in low precision, with `QATTrainerCallback`, in the next.

    Args:
        make: takes the model and its optimizer when training begins, and returns what makes it smaller.

    Attributes:
        report: what became of the model, once training has ended.
    """

    def __init__(self, make: Callable[[nn.Module, torch.optim.Optimizer], Pruning | Sparsity]) -> None:
        self.make = make
        self.structure: Pruning | Sparsity | None = None
        self.report: PruningReport | SparsityReport | None = None

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **_: Any
    ) -> None:
        """Begins, now that there is an optimizer; accelerate has put its own around the user's."""
        self.structure = self.make(model, getattr(optimizer, "optimizer", optimizer))
        if state.global_step and _structure(args, state).exists():
            self.structure.load_state_dict(read_whole(_structure(args, state))["structure"])

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A step of the optimizer."""
        if self.structure is not None:
            self.structure.on_step()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Adds to the checkpoint what neither model nor optimizer hold."""
        if self.structure is not None and state.is_world_process_zero:
            write_whole(_structure(args, state), {"format": FORMAT, "structure": self.structure.state_dict()})

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ends."""
        if self.structure is not None:
            self.report, self.structure = self.structure.finish(), None


def _structure(args: Any, state: Any) -> Path:
    return _place(args, state).with_name("bitwright_structure.pt")


def _place(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}" / _FILE


def _without_labels(read: Callable[[Any], Arguments]) -> Callable[[Any], Arguments]:
    """Labels belong to the loss, which is no part of what is deployed."""

    def arguments(batch: Any) -> Arguments:
        if isinstance(batch, Mapping):
            batch = {name: value for name, value in batch.items() if name not in _LABELS}
        return read(batch)

    return arguments


def _batches(calibration: Any, samples: int) -> Iterable[Any]:
    """Batches as they are; of a data set its first samples, collated."""
    if isinstance(calibration, list | tuple) or not hasattr(calibration, "__getitem__"):
        return calibration  # type: ignore[no-any-return]
    items = [calibration[place] for place in range(min(samples, len(calibration)))]
    return [default_data_collator(items[start : start + _TOGETHER]) for start in range(0, len(items), _TOGETHER)]
