"""Predictions on other people's latency table: 273 blocks on a phone's processor, once-for-all's (Cai et al. 2020).

Three ways, each judged on blocks that it has not seen:

- `adapted`: the predictor of one thread of ONNX Runtime on this processor, adapted by 20 of the blocks of the phone
  that say most (another instruction set, another runtime, another device); judged on the 253 others.
- `trained`: a Gaussian process, as each kernel family's, on the blocks of two resolutions; judged on the third one's.
- `few`: the same on 20 blocks drawn at random; judged on the 253 others.

Beside them what follows from a block's multiply-accumulates alone, and what others report of their own tables, on
other devices and with far more samples: LitePred's README (github.com/microsoft/Moonlit, LitePred) names, for
TensorFlow Lite on phones' processors, 1,800 to 3,500 samples to adapt by and 79.4 to 97.6 % of networks within 5 %,
99.2 to 100 % within 10 %; nn-Meter (Zhang et al. 2021) 99 % within 10 % on its processor. once-for-all prints no error:
its table is looked up, not predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.latency.once_for_all import RESOLUTIONS, Block, published
from bitwright.experiments.benchmarks.latency.predicted import predictor
from bitwright.experiments.benchmarks.records import Record, record
from bitwright.hw_constraints.kernels.known_rules import known_rules
from bitwright.hw_constraints.predict.adapt import adapt, telling
from bitwright.hw_constraints.predict.gaussian_process import GaussianProcess, learn

ROW = "published_tables"
RUNTIME = "onnxruntime"
SAMPLES = 20
_NOISE = 0.02**2  # variance of log time: the table's own deviations are 1 to 4 %, of 40 to 500 runs
Floats = npt.NDArray[np.float64]
_THEIRS = (
    ("LitePred, TensorFlow Lite on phones' processors, 1,800 to 3,500 samples", "79.4 to 97.6", "99.2 to 100"),
    ("nn-Meter, its processor, all kernels of the families measured", "–", "99"),
)


def run(bench: Bench) -> list[Record]:
    """Predicts the table's blocks from a part of them."""
    blocks = published()
    found = {
        "adapted": _adapted(blocks),
        "trained": _trained(blocks),
        "few": _few(blocks),
        "multiply-accumulates": _by_macs(blocks),
    }
    table = [_line(name, errors) for name, errors in found.items()]
    table += [
        {"who": who, "blocks": "–", "median error %": "–", "p90 error %": "–", "within 5 %": five, "within 10 %": ten}
        for who, five, ten in _THEIRS
    ]
    return [
        record(
            f"{ROW}.{name}.{figure}",
            area="hw_constraints",
            value=100 * float(np.quantile(_relative(found[name]), level)),
            unit="% of a block's latency",
            n=len(found[name]),
            table=table,
        )
        for name in ("adapted", "trained", "few")
        for figure, level in (("median_error", 0.5), ("p90_error", 0.9))
    ]


def _adapted(blocks: Sequence[Block]) -> Floats:
    """Log(predicted / measured) of the blocks that were not used to adapt."""
    by = predictor(RUNTIME)
    measured = [block.measured(RUNTIME) for block in blocks]
    chosen = telling(by, measured[::2], SAMPLES)  # every second one may be chosen; those that are not, are judged
    samples = [measured[2 * index] for index in chosen]
    adapted = adapt(by, samples, rules=known_rules(RUNTIME), where="Note10")
    used = {each.name for each in samples}
    return np.array(
        [
            np.log(adapted.network(block.split(RUNTIME)).us / 1e3 / block.ms)
            for block in blocks
            if block.name not in used
        ]
    )


def _trained(blocks: Sequence[Block]) -> Floats:
    """Likewise, each resolution's by a process that has seen the two others."""
    parts = [
        _by_process(
            [each for each in blocks if each.resolution != new], [each for each in blocks if each.resolution == new]
        )
        for new in RESOLUTIONS
    ]
    return np.concatenate(parts)


def _few(blocks: Sequence[Block]) -> Floats:
    """Likewise, by a process that has seen few blocks."""
    order = np.random.default_rng(0).permutation(len(blocks))
    return _by_process(*([blocks[at] for at in part] for part in (order[:SAMPLES], order[SAMPLES:])))


def _by_process(seen: Sequence[Block], new: Sequence[Block]) -> Floats:
    """What a power of the work leaves is a Gaussian process of sizes."""
    x, target = _features(seen), np.log([block.ms for block in seen])
    mean, spread = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-9)
    (start, slope), *_ = np.linalg.lstsq(np.column_stack([np.ones(len(seen)), x[:, 0]]), target, rcond=None)
    residual = target - start - slope * x[:, 0]
    scaled, noise = (x - mean) / spread, np.full(len(seen), _NOISE)
    process = GaussianProcess(scaled, residual, noise, learn(scaled, residual, noise))
    ahead = _features(new)
    log_ms = process.predict((ahead - mean) / spread)[0] + start + slope * ahead[:, 0]
    return np.asarray(log_ms - np.log([block.ms for block in new]))


def _features(blocks: Sequence[Block]) -> Floats:
    """Logarithms of work and sizes; what a block has, as 0 or 1."""
    rows = []
    for block in blocks:
        graph = block.graph()
        macs = sum(map(graph.macs, graph.nodes))
        sizes = (macs, block.side, block.channels_in, block.channels_out, block.expanded, block.kernel)
        rows.append([*np.log(sizes), block.stride, block.skip, block.squeeze_excite, block.hard_swish])
    return np.asarray(rows, np.float64)


def _by_macs(blocks: Sequence[Block]) -> Floats:
    """One time for a multiply-accumulate, the one that fits all of them best."""
    macs = _features(blocks)[:, 0]
    measured = np.log([block.ms for block in blocks])
    return np.asarray(macs - measured - np.median(macs - measured))


def _relative(errors: Floats) -> Floats:
    return np.abs(np.expm1(errors))


def _line(name: str, errors: Floats) -> dict[str, Any]:
    relative = _relative(errors)
    return {
        "who": name,
        "blocks": str(len(errors)),
        "median error %": f"{100 * np.median(relative):.1f}",
        "p90 error %": f"{100 * np.quantile(relative, 0.9):.1f}",
        "within 5 %": f"{100 * np.mean(relative <= 0.05):.1f}",
        "within 10 %": f"{100 * np.mean(relative <= 0.1):.1f}",
    }
