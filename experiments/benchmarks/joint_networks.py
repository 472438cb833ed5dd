"""Residual networks of four stages whose widths, kernels, gates, activations, formats and zeros a search decides.

Their weights are shared and trained once; what a candidate scores is what its inherited weights score after zeros,
rounding and export, in the runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from bitwright.experiments.benchmarks.cluttered_digits import SIZE, open_cluttered_digits
from bitwright.experiments.models.elastic_conv import Settings, build
from bitwright.experiments.supernet_task import DataTask
from bitwright.nas.block_choices import DENSE, BlockChoices
from bitwright.nas.block_formats import apply_block_formats
from bitwright.nas.declared_space import DeclaredSpace
from bitwright.nas.elastic.built import BuiltElastic
from bitwright.nas.objective.sparse_blocks import has_zeros
from bitwright.nas.space import Candidate, Parameter, Value
from bitwright.nas.supernet import InheritedAccuracy, SupernetSettings, recalibrate, train_supernet

STAGES = 4
FLOAT, TARGET, RUNTIME = "float32", "x86-vnni", "onnxruntime"
FORMATS, PATTERNS = ("int8", FLOAT), (DENSE, "2:4")
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class JointSpace(DeclaredSpace):
    """Four stages with their formats and zeros; stem and head have the formats of the stages beside them."""

    def formats(self, candidate: Candidate, model: nn.Module) -> Mapping[str, str]:
        """The path of each block, with its format."""
        blocks = super().formats(candidate, model)
        first, last = str(candidate.values["format_0"]), str(candidate.values[f"format_{STAGES - 1}"])
        return {"stem": first, **blocks, "head": last, "classifier": last}


def architecture_space(widths: tuple[float, ...], kernels: tuple[int, ...]) -> DeclaredSpace:
    """The decisions of each stage without formats and zeros."""
    ordered: dict[str, tuple[Value, ...]] = {"width": widths, "kernel": kernels}
    unordered: dict[str, tuple[Value, ...]] = {"activation": ("relu", "hardswish"), "se": (False, True)}
    return DeclaredSpace(
        own=tuple(
            Parameter(name=f"{name}_{stage}", choices=choices, ordered=name in ordered)
            for stage in range(STAGES)
            for name, choices in (ordered | unordered).items()
        )
    )


BLOCK_CHOICES = BlockChoices(formats=FORMATS, sparsity=PATTERNS, stages=STAGES)


def network(architecture: Mapping[str, Value]) -> nn.Module:
    """With fresh weights."""
    return build(Settings.model_validate({"family": "residual", "depth": 1, "expansion": 1, **architecture}))


@dataclass(frozen=True, kw_only=True)
class JointNetworks:
    """The networks of a space with weights that they share.

    Attributes:
        architectures: what can be chosen of them, beside formats and zeros.
        shared: how the weights are trained.
        folder: gets weights, scores and files.
    """

    architectures: DeclaredSpace
    shared: SupernetSettings
    folder: Path

    @cached_property
    def space(self) -> JointSpace:
        """Architecture × format × sparsity."""
        return JointSpace(own=self.architectures.own, block_choices=BLOCK_CHOICES)

    @property
    def example(self) -> tuple[torch.Tensor]:
        """Arguments of `forward`."""
        return (torch.zeros(1, 3, SIZE, SIZE),)

    @cached_property
    def inherited(self) -> InheritedAccuracy:
        """The weights; trained where that was not done yet, or where it was cut."""
        task = DataTask(data=open_cluttered_digits(), read=lambda batch: (batch[0],), batch=_BATCH)
        with torch.random.fork_rng():
            torch.manual_seed(self.shared.seed)
            elastic = BuiltElastic(self.architectures, network, example=self.example)
        train_supernet(elastic, task, self.shared, self.folder)
        return InheritedAccuracy(elastic=elastic, task=task, folder=self.folder, calibration=self.shared.calibration)

    def file(self, candidate: Candidate) -> Path:
        """Where a candidate is exported to."""
        return self.folder / "files" / f"{candidate.key}.onnx"

    def accuracy(self, candidate: Candidate) -> float:
        """Of the exported file, %; of the network itself where it is all float and dense, which is the same."""
        values = candidate.values
        if all(values[f"format_{stage}"] == FLOAT and values[f"sparsity_{stage}"] == DENSE for stage in range(STAGES)):
            return self.inherited(candidate)
        return self.inherited.kept.score(candidate.key, lambda: self.export(candidate))

    def exported(self, candidate: Candidate) -> Path:
        """A candidate's file; written where that was not done yet."""
        if not self.file(candidate).exists():
            self.export(candidate)
        return self.file(candidate)

    def export(self, candidate: Candidate) -> float:
        """Writes a candidate's file; what it scores, %."""
        from bitwright.experiments.runtime_model import RuntimeModel
        from bitwright.hw_constraints.target import load_target
        from bitwright.quant.capture import capture
        from bitwright.quant.export.onnx_qdq import export_onnx_qdq
        from bitwright.quant.ptq import quantize

        own, target, batches = (
            self.inherited.network(candidate),
            load_target(TARGET),
            self.inherited.calibration_batches,
        )
        zeros = self.space.sparsity(candidate, own)
        scheme = apply_block_formats(target.scheme(), target, self.space.formats(candidate, own))
        with has_zeros(own, zeros), torch.no_grad():
            if zeros:
                recalibrate(own, batches)
            quantized = quantize(capture(own, self.example), scheme, batches)
            file = self.file(candidate)
            file.parent.mkdir(parents=True, exist_ok=True)
            export_onnx_qdq(quantized, file)
            return self.inherited.task.score(RuntimeModel(file, RUNTIME, own(*self.example)))  # type: ignore[arg-type]
