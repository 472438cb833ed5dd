"""Quantization-aware training in Lightning's `Trainer`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bitwright.qat.callback import QATCallback
from bitwright.quant.errors import InputError, MissingExtraError

try:
    from lightning.pytorch.callbacks import Callback
except ImportError as missing:
    raise MissingExtraError("QATLightning", "lightning") from missing


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
            try:
                model = pl_module.get_submodule(self.module)
            except AttributeError as error:
                known = ", ".join(name for name, _ in pl_module.named_children())
                raise InputError(
                    f"QATLightning: module = {self.module!r} is no part of {type(pl_module).__name__} (it has {known})"
                ) from error
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
