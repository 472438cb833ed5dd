"""An ONNX file through the eyes of an accelerator, as the network that it was exported from would be seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bitwright.hw_constraints.finding import Finding
from bitwright.hw_constraints.lint import lint
from bitwright.hw_constraints.target_types import Target
from bitwright.quant.onnx_import.fold_batch_norm import fold_batch_norms
from bitwright.quant.onnx_import.import_graph import ImportedModel, graph_from_onnx


def lint_onnx(path: str | Path, target: Target, *, rules: Sequence[str] | None = None) -> tuple[Finding, ...]:
    """Reads and lints an ONNX file.

    A float file is planned by the target's scheme, as a captured network is; a quantized one as its own codes say.

    Args:
        path: the file.
        target: the accelerator.
        rules: names of the rules to apply; None for all.

    Raises:
        InputError: no such file, no ONNX model, a broken one, or an unknown rule.
    """
    return lint_imported(graph_from_onnx(path), target, rules=rules)


def lint_imported(model: ImportedModel, target: Target, *, rules: Sequence[str] | None = None) -> tuple[Finding, ...]:
    """Lints what was read from an ONNX file; see `lint_onnx`."""
    if model.plan is None:
        model = ImportedModel(
            graph=fold_batch_norms(model.graph), plan=None, qparams={}, kept=model.kept, name=model.name
        )
    return lint(model.graph, target, plan=model.plan_by(target.scheme()), rules=rules)
