"""The float networks that recipes train on real data: trained once, kept with their data, given to everybody alike."""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from bitwright.experiments.benchmarks.float_networks import BATCH, OPSET
from bitwright.experiments.benchmarks.peers.driver import PeerJob
from bitwright.experiments.benchmarks.peers.workers.networks import load_network
from bitwright.experiments.console import Console
from bitwright.experiments.datasets import Split
from bitwright.experiments.extensions import MODELS
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.stage_store import source_hash
from bitwright.experiments.training import Schedule, fit, labels_of
from bitwright.experiments.workbench import Workbench


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """A trained network and the data that it is quantized and scored with.

    Attributes:
        folder: holds all of it.
        library: the folder of `networks.load_network`.
    """

    folder: Path
    library: Path

    @property
    def name(self) -> str:
        """The folder's: the recipe's name and what decided the training, so that file names tell networks apart."""
        return self.folder.name

    @property
    def description(self) -> Path:
        """What `networks.load_network` builds it from."""
        return self.folder / f"{self.name}.json"

    @property
    def float_file(self) -> Path:
        """It as ONNX: batch 1, input `input`, output `logits`."""
        return self.folder / f"{self.name}.onnx"

    @property
    def calibration(self) -> Path:
        """.npy, float32 [images, 3, H, W]."""
        return self.folder / f"{self.name}-calibrate.npy"

    @property
    def scored(self) -> Path:
        """.npy, float32 [images, 3, H, W]."""
        return self.folder / f"{self.name}-scored.npy"

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """Of the scored images, [images, …]."""
        loaded: npt.NDArray[np.int64] = np.load(self.folder / "labels.npy")
        return loaded

    @cached_property
    def float_logits(self) -> npt.NDArray[np.float32]:
        """The eager float network's, [images, classes, …]."""
        loaded: npt.NDArray[np.float32] = np.load(self.folder / "logits.npy")
        return loaded

    def network(self) -> torch.nn.Module:
        """In float, in eval mode."""
        return load_network(str(self.description), self.library)

    def job(self, peer: str, method: str) -> PeerJob:
        """The request to quantize it, with the logits of the scored images where no file is to be scored."""
        return PeerJob(
            peer=peer,
            method=method,
            network=str(self.description),
            float_file=self.float_file,
            calibration=self.calibration,
            scored=self.scored,
        )


def trained_network(recipe: str, *overrides: str, library: Path, cache: Path) -> TrainedNetwork:
    """Trains by a recipe, unless that has been done with the same recipe, data and code.

    Args:
        recipe: its name.
        overrides: as on the command line: `data.root=…`.
        library: the folder of `networks.load_network`.
        cache: where trained networks are kept.
    """
    bench = Workbench(load_recipe(recipe, overrides))
    asked = [bench.recipe.section(part) for part in ("seed", "model", "data", "train", "calibrate", "evaluate")]
    assert not asked[3].pop("sparsity")  # these keep no zeros
    code = [f"bitwright.experiments.{each}" for each in ("training", f"datasets.{bench.recipe.data.kind}")]
    architecture = _source(bench.new_model()).read_text()
    parts = [json.dumps(asked, sort_keys=True), bench.data.fingerprint, architecture, *map(source_hash, code)]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
    trained = TrainedNetwork(folder=cache / "trained" / f"{recipe}-{digest}", library=library)
    if not trained.description.exists():
        trained.folder.mkdir(parents=True, exist_ok=True)
        model = _train(bench)
        _keep_data(bench, model, trained)
        _keep_network(bench, model, trained)
    return trained


def _source(model: torch.nn.Module) -> Path:
    """The file that defines its class."""
    return Path(inspect.getfile(type(model)))


def _train(bench: Workbench) -> torch.nn.Module:
    asked = bench.recipe.train
    assert asked is not None
    model = bench.new_model()
    schedule = Schedule(**asked.model_dump(exclude={"sparsity"}))
    epochs = fit(model, bench.data, lambda batch: (batch[0],), schedule, seed=bench.recipe.seed)
    with Console().track(f"training {bench.recipe.name}, epochs", asked.epochs) as advance:
        for done, epoch in enumerate(epochs, 1):
            advance(done, f"loss {epoch.loss:.3f}")
    return model.eval().requires_grad_(False)


def _keep_data(bench: Workbench, model: torch.nn.Module, trained: TrainedNetwork) -> None:
    calibration = torch.cat([arguments[0] for arguments in bench.calibration(model)])
    np.save(trained.calibration, calibration.numpy())
    batches = list(bench.data.loader(Split.EVALUATE, BATCH, None))
    np.save(trained.scored, torch.cat([batch[0] for batch in batches]).numpy())
    np.save(trained.folder / "labels.npy", torch.cat([labels_of(batch) for batch in batches]).numpy())
    with torch.inference_mode():
        np.save(trained.folder / "logits.npy", torch.cat([model(batch[0]) for batch in batches]).numpy())


def _keep_network(bench: Workbench, model: torch.nn.Module, trained: TrainedNetwork) -> None:
    """The description last: where it stands, everything does."""
    section, weights = bench.recipe.model, trained.folder / "weights.pt"
    settings = MODELS.load(section.kind or "").settings.model_validate(section.settings)
    torch.save(model.state_dict(), weights)
    example = torch.from_numpy(np.load(trained.calibration, mmap_mode="r")[:1].copy())
    torch.onnx.export(
        model,
        (example,),
        str(trained.float_file),
        input_names=["input"],
        output_names=["logits"],
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    told = {
        "source": str(_source(model)),
        "name": type(model).__name__,
        "settings": settings.model_dump(),
        "weights": str(weights),
    }
    trained.description.write_text(json.dumps(told, indent=1))
