"""A sentence encoder with its real weights in three formats: how near do its embeddings stay, ours beside the peers'?

all-MiniLM-L6-v2 on texts of the standard library's docstrings: 200 calibrate, 300 others are scored that no choice was
made on. W8A8 and fp8 have every linear layer and attention's products in low precision (ModelOpt its linear layers
only); W4A16 has the weights of the linear layers in int4, in blocks of 128. Figures are the mean cosine between an
embedding and the float network's, and the rank correlation (Spearman) between the similarities of all pairs of texts,
which is what search is made of.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.encoder_network import EncoderNetwork
from bitwright.experiments.benchmarks.metrics import Estimate, bootstrap
from bitwright.experiments.benchmarks.peers.asking import ask
from bitwright.experiments.benchmarks.peers.environments import OURS
from bitwright.experiments.benchmarks.peers.workers.encoder_exchange import EncoderRequest
from bitwright.experiments.benchmarks.records import Reach, Record, record

ROW = "sentence_encoder"
# By format ours first, by the method that the figure is of; then what it gains over less, then the peers.
SIDES = {
    "w8a8": (
        (OURS, "w8a8,smoothquant"),
        (OURS, "w8a8"),
        (OURS, "w8a8,smoothquant,rotate"),
        ("nncf", "int8"),
        ("modelopt", "int8_smoothquant"),
        ("modelopt", "int8"),
        ("ort_encoder", "static"),
        ("ort_encoder", "dynamic"),
    ),
    "fp8": ((OURS, "fp8,gptq"), (OURS, "fp8"), ("nncf", "fp8"), ("modelopt", "fp8")),
    "w4a16": (
        (OURS, "w4a16,gptq"),
        (OURS, "w4a16,awq"),
        (OURS, "w4a16"),
        ("nncf", "int4_awq"),
        ("nncf", "int4_gptq"),
        ("modelopt", "int4_awq"),
        ("ort_encoder", "int4"),
        ("ort_encoder", "int4_symmetric"),
    ),
}

Embeddings = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Side:
    """One toolkit's method: its embeddings of the scored texts, [texts, width]."""

    name: str
    embeddings: Embeddings
    wall_s: float
    versions: dict[str, str]


def run(bench: Bench) -> list[Record]:
    """Three formats, everybody's methods in each."""
    network = EncoderNetwork(bench.home, bench.cache)
    reference = network.float_embeddings()
    return [entry for name in SIDES for entry in _format(bench, network, name, reference)]


def _format(bench: Bench, network: EncoderNetwork, name: str, reference: Embeddings) -> list[Record]:
    sides = [side_of(bench, network, who, method) for who, method in SIDES[name]]
    cosines = {side.name: cosine(reference, side.embeddings) for side in sides}
    best = max(cosines[side.name].value for side in sides if not side.name.startswith(OURS))
    ours = sides[0]
    common: dict[str, Any] = {
        "area": "quant",
        "n": len(reference),
        "peers": {package: version for side in sides for package, version in side.versions.items()},
        "table": [
            {
                "format": name,
                "who": side.name,
                "1 - cosine, in thousandths": f"{1e3 * (1 - cosines[side.name].value):.3f}",
                "rank correlation": f"{rank_correlation(reference, side.embeddings):.5f}",
                "wall s": f"{side.wall_s:.0f}",
            }
            for side in sides
        ],
    }
    found = cosines[ours.name]
    return [
        record(
            f"{ROW}.{name}", value=found.value, unit="cosine", reach=Reach("≥", best), spread=found.interval, **common
        ),
        record(
            f"{ROW}.{name}_ranks", value=rank_correlation(reference, ours.embeddings), unit="Spearman's ρ", **common
        ),
    ]


def side_of(bench: Bench, network: EncoderNetwork, who: str, method: str) -> Side:
    """What a toolkit makes of the encoder, in a process of its own; kept between runs."""
    request = EncoderRequest(
        method=method,
        weights=str(network.weights_file),
        float_file=str(network.float_file),
        calibration=str(network.calibration_file),
        scored=str(network.scored_file),
        folder="",
    )
    worker = who if who.endswith("_encoder") else f"{who}_encoder"
    answer = ask(who, f"{method}-encoder", asdict(request), home=bench.home, cache=bench.peers, worker=worker)
    return Side(
        name=f"{who.removesuffix('_encoder')} {method}",
        embeddings=np.load(answer["embeddings"]),
        wall_s=answer["wall_s"],
        versions={} if who == OURS else answer["versions"],
    )


def cosine(reference: Embeddings, embeddings: Embeddings) -> Estimate:
    """The mean over texts of `a · b / (|a| |b|)`, with its interval over texts."""
    texts = len(reference)
    each = (_unit(reference) * _unit(embeddings)).sum(1)
    return bootstrap(each[:, None].astype(np.float64), lambda sums: np.asarray(sums[..., 0] / texts))


def rank_correlation(reference: Embeddings, embeddings: Embeddings) -> float:
    """Spearman's, between the cosines of all pairs of texts by the one and by the other."""
    from scipy.stats import spearmanr

    pairs = np.triu_indices(len(reference), 1)
    first, second = ((_unit(part) @ _unit(part).T)[pairs] for part in (reference, embeddings))
    return float(spearmanr(first, second).statistic)


def _unit(embeddings: Embeddings) -> Embeddings:
    found: Embeddings = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return found
