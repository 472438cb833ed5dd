"""Quantization-aware training in Lightning's `Trainer`, and networks that become smaller there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.qat.callback import QATCallback
from bitwright.quant.errors import InputError, MissingExtraError

try:
    from lightning.pytorch.callbacks import Callback
except ImportError as missing:
    raise MissingExtraError("QATLightning", "lightning") from missing

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bitwright.qat.sparsity import Pruning, PruningReport, Sparsity, SparsityReport


class QATLightning(Callback):  # type: ignore[misc]
    """Trains a `LightningModule`, or one module inside it, in the number formats of its target.

        trainer = L.Trainer(callbacks=[QATLightning(target="ethos-u85-1024", calibration=loader, path="model.tflite")])

    It attaches before the optimizers are configured and before a checkpoint is restored, so that both know the scales.
    In an optimizer made of `self.parameters()` scales are among the other parameters, but do not decay.

    Args:
        calibration: batches as the training loop's.
        module: the name of the attribute to train, such as `"model"`; by default the `LightningModule` itself, whose
            `forward` it then is that the training step has to call, as `self(x)`.
        path: where the artefact is written when fitting has ended; the module is a float network again then. None
            leaves it as it is trained, and `qat.finish()` to the user.
        options: as `QATCallback` takes them: `target`, `weights`, `schedule` and others.

    Attributes:
        qat: the callback in force; None before fitting.
    """

    def __init__(
        self, *, calibration: Iterable[Any], module: str = "", path: str | Path | None = None, **options: Any
    ) -> None:
        self.calibration, self.module, self.path, self.options = calibration, module, path, options
        self.qat: QATCallback | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Attaches."""
        if stage == "fit" and self.qat is None:
            model = _part(pl_module, self.module, "QATLightning")
            self.qat = QATCallback(model, None, calibration=self.calibration, **self.options)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Lightning computes gradients inside the optimizer's step, so its own hook comes too early."""
        if self.qat is not None:
            self.qat.before_step()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Writes the artefact."""
        if self.qat is not None and self.path is not None:
            self.qat.finish(self.path)
            self.qat = None

    def state_dict(self) -> dict[str, Any]:
        """For Lightning's checkpoints."""
        return {} if self.qat is None else self.qat.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From Lightning's checkpoints."""
        if self.qat is not None and state_dict:
            self.qat.load_state_dict(state_dict)


class SmallerLightning(Callback):  # type: ignore[misc]
    """Makes the network of a `LightningModule` smaller while it fits: by `Pruning`, or by `Sparsity`.

        smaller = SmallerLightning(lambda model, optimizer: Pruning(model, optimizer, example=(x,), cost=macs, ...))
        L.Trainer(callbacks=[smaller]).fit(module, loader)

    Channels leave in a fit of their own: train in low precision, with `QATLightning`, in the next. A checkpoint from
    the middle of `Pruning` has other shapes than a module that is made anew, which Lightning cannot load.

    Args:
        make: takes the network and its optimizer when training begins, and returns what makes it smaller.
        module: the name of the attribute that is the network; by default the `LightningModule` itself.

    Attributes:
        report: what became of the network, once fitting has ended.
    """

    def __init__(
        self, make: Callable[[nn.Module, torch.optim.Optimizer], Pruning | Sparsity], *, module: str = ""
    ) -> None:
        self.make, self.module = make, module
        self.structure: Pruning | Sparsity | None = None
        self.report: PruningReport | SparsityReport | None = None
        self._remembered: dict[str, Any] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begins, now that there is an optimizer."""
        model = _part(pl_module, self.module, "SmallerLightning")
        self.structure = self.make(model, trainer.optimizers[0])
        if self._remembered:
            self.structure.load_state_dict(self._remembered)
        self._steps = trainer.global_step

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Counts the optimizer's steps, not batches."""
        if self.structure is not None and trainer.global_step > self._steps:
            self._steps = trainer.global_step
            self.structure.on_step()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Ends."""
        if self.structure is not None:
            self.report, self.structure = self.structure.finish(), None

    def state_dict(self) -> dict[str, Any]:
        """For Lightning's checkpoints."""
        return {} if self.structure is None else self.structure.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From Lightning's checkpoints, which come before the optimizer does."""
        self._remembered = dict(state_dict)


def _part(module: Any, name: str, who: str) -> Any:
    try:
        return module.get_submodule(name)
    except AttributeError as error:
        known = ", ".join(each for each, _ in module.named_children())
        raise InputError(f"{who}: module = {name!r} is no part of {type(module).__name__} (it has {known})") from error
