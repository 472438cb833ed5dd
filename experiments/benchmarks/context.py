"""What every row is given: the data, the float networks, the peers and where things are kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bitwright.experiments.benchmarks import float_networks, places
from bitwright.experiments.benchmarks.imagenet_sample import ImagenetSample
from bitwright.experiments.benchmarks.peers.driver import PeerJob, PeerResult, run_peer
from bitwright.experiments.benchmarks.peers.environments import LIBRARY, install_library
from bitwright.experiments.benchmarks.trained_networks import TrainedNetwork, trained_network
from bitwright.experiments.load_recipe import load_recipe


@dataclass(frozen=True)
class Bench:
    """The surroundings of one run of a row.

    Attributes:
        data_root: the folder of the row's pictures as the user named it; None leaves it to the environment.
        home: the peers' environments.
        cache: what is kept between runs.
    """

    data_root: str | None
    home: Path
    cache: Path

    @cached_property
    def sample(self) -> ImagenetSample:
        """The pictures of the accuracy protocol."""
        return ImagenetSample(places.imagenet_root(self.data_root), self.cache)

    def float_file(self, network: str) -> Path:
        """A float network as ONNX."""
        return float_networks.float_file(network, home=self.home, cache=self.cache)

    def float_logits(self, network: str) -> npt.NDArray[np.float32]:
        """The eager float network's logits of the scored pictures, [scored, classes]."""
        return float_networks.float_logits(network, self.sample.scored_file, home=self.home, cache=self.cache)

    def peer(
        self, name: str, method: str, network: str, *, scored: bool = True, calibration: Path | None = None
    ) -> PeerResult:
        """What a peer makes of a network, kept between runs.

        Args:
            name: the peer.
            method: one of its methods.
            network: which network.
            scored: whether its own logits of the scored pictures are wanted.
            calibration: other calibration images than the protocol's.
        """
        return run_peer(self.peer_job(name, method, network, scored, calibration), home=self.home, cache=self.peers)

    def peer_job(self, name: str, method: str, network: str, scored: bool, calibration: Path | None = None) -> PeerJob:
        """The request that `peer` runs."""
        return PeerJob(
            peer=name,
            method=method,
            network=network,
            float_file=self.float_file(network),
            calibration=calibration or self.sample.calibration_file,
            scored=self.sample.scored_file if scored else None,
        )

    def trained(self, recipe: str, *overrides: str) -> TrainedNetwork:
        """A network that a recipe trains, kept between runs; recipes with a `data.root` get the road scenes.

        Args:
            recipe: its name.
            overrides: as on the command line.
        """
        install_library(self.home)
        has_root = "root" in load_recipe(recipe).data.settings
        root = [f"data.root={places.camvid_root(self.data_root)}"] if has_root else []
        return trained_network(recipe, *root, *overrides, library=self.home / LIBRARY, cache=self.cache)

    @property
    def peers(self) -> Path:
        """Where the peers' results are kept."""
        return self.cache / "peers"

    @property
    def ours(self) -> Path:
        """Where our own files of a run are kept."""
        return self.cache / "ours"
