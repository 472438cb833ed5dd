"""Sparse and pruned networks by us and by ModelOpt under one budget: the same data, loop, loss, epochs and rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.latency.predicted import table_file
from bitwright.experiments.benchmarks.peers.asking import WORKERS, ask
from bitwright.experiments.benchmarks.peers.environments import LIBRARY, OURS
from bitwright.experiments.benchmarks.places import checkout
from bitwright.experiments.benchmarks.qat_contest import Contest, Subject
from bitwright.hw_constraints.measure import Measurement, measure_in_subprocess
from bitwright.hw_constraints.predict.from_table import load_predictor
from bitwright.hw_constraints.predict.predictor import LatencyPredictor
from bitwright.hw_constraints.target import load_target
from bitwright.qat.sparsity.in_place import take
from bitwright.quant.capture import capture
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.graph import TensorRef
from bitwright.quant.ptq import quantize

SIDES = (OURS, "modelopt")
VARIANTS = ("2:4", "pruned")
RATES = (1e-3,)  # no side tunes
SHARE = 0.6  # of the predicted latency that stays
# Of the multiply-accumulates that ModelOpt may keep; the one whose measured latency is nearest to ours counts.
MODELOPT_SHARES = (0.7, 0.6, 0.5, 0.4)
SPARSE_EPOCHS, QAT_EPOCHS = 8, 4
# Of half the width, half of the channels save 4 % of the time: what is left there is the calls of kernels.
SUBJECT = Subject("wide resnet on digits", "qat_classification", ("model.width=2",), epochs=2, batch=64, validation=260)
_RUNTIME = "onnxruntime"


class SparsityContest:
    """All trainings, kept between runs one by one, on ResNet-14 of twice the width for digits."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.contest = Contest(bench, SUBJECT)
        self.trained = self.contest.trained
        self.folder = bench.cache / "sparsity_contest"

    @cached_property
    def predictor(self) -> LatencyPredictor:
        """Of the table that our own side prunes by."""
        return load_predictor(table_file(_RUNTIME))

    def answer(self, side: str, variant: str, *, lr: float, seed: int, share: float = 1.0, **more: Any) -> Any:
        """See `sparse_exchange.serve`."""
        request = {
            "network": str(self.trained.description),
            "library": str(self.bench.home / LIBRARY),
            "data": str(self.contest.data),
            "part": "test",
            "weight_bits": 8,
            "activation_bits": 8,
            "epochs": QAT_EPOCHS,
            "batch": 64,
            "lr": lr,
            "seed": seed,
            "classes": 10,
            "ignore": -1,
            "metric": "top1",
            "variant": variant,
            "sparse_epochs": SPARSE_EPOCHS,
            "share": share,
            "table": str(table_file(_RUNTIME)) if side == OURS else "",
            **more,
        }
        own = sorted((checkout() / "qat" / "sparsity").glob("*.py")) if side == OURS else []
        files = [WORKERS / "sparse_exchange.py", WORKERS / "qat_exchange.py", *own]
        question = f"sparse-{variant.replace(':', '-')}"
        return ask(
            side,
            question,
            request,
            home=self.bench.home,
            cache=self.folder,
            files=files,
            worker=f"{side}_sparse",
            rounds=False,
        )

    def best(self, side: str, variant: str, seeds: Sequence[int], *, share: float = 1.0) -> list[Any]:
        """The answers of all seeds at the rate with the best validation score of the first; of equal ones the least."""
        tried = {lr: self.answer(side, variant, lr=lr, seed=seeds[0], share=share) for lr in RATES}
        rate = max(RATES, key=lambda lr: (tried[lr]["validation"], -lr))
        return [{**self.answer(side, variant, lr=rate, seed=seed, share=share), "rate": rate} for seed in seeds]

    def file(self, shapes: Mapping[str, Sequence[int]], name: str) -> Path:
        """A network of these shapes in W8A8 as ONNX; its weights are cut anyhow, its time does not hang on them."""
        model = self.trained.network()
        cuts = {
            TensorRef("", path): {axis: np.arange(size) for axis, size in enumerate(shapes[path])}
            for path, tensor in model.state_dict().items()
            if tensor.dim() and list(tensor.shape) != list(shapes[path])
        }
        take(model, cuts)
        images = torch.from_numpy(np.load(self.trained.calibration)[:16])
        captured = capture(model.eval(), (images[:1],))
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.onnx"
        export_onnx_qdq(quantize(captured, load_target("x86-vnni").scheme(), [image[None] for image in images]), path)
        return path

    def whole_shapes(self) -> dict[str, list[int]]:
        """Of the network that everybody began with."""
        return {name: list(t.shape) for name, t in self.trained.network().state_dict().items() if t.dim()}

    def measured(self, files: Mapping[str, Path], seconds: float) -> Measurement:
        """Latencies in the same rounds, one thread."""
        return measure_in_subprocess(
            {name: (path, _RUNTIME) for name, path in files.items()}, threads=1, max_seconds=seconds
        )

    def predicted_us(self, file: Path) -> float:
        """From the table of kernels."""
        return self.predictor.network(self.predictor.split(file)).us
