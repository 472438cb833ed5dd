"""From a quantized network to the fastest file that one runtime has of it: float, int8, or int8 in parts."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.hw_constraints.autotune.decision import Candidates, Decision
from bitwright.hw_constraints.autotune.fidelity import Accuracy, Fidelity, Judge, RuntimeAccuracy, worse
from bitwright.hw_constraints.autotune.journal import Journal
from bitwright.hw_constraints.autotune.laboratory import FLOAT, Budget, Effort, Laboratory
from bitwright.hw_constraints.autotune.placements import Placements
from bitwright.hw_constraints.autotune.search import Predict, Search
from bitwright.hw_constraints.autotune.sites import Sites, find_sites
from bitwright.hw_constraints.backends import Arrays, get_backend
from bitwright.hw_constraints.machine import this_machine
from bitwright.hw_constraints.measure import Ratio
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.errors import InputError
from bitwright.quant.quantized_model import QuantizedModel

FULL, TUNED = "full int8", "tuned"
NEVER_SLOWER = 1.03  # upper 95 % bound of the tuned file's time against float and full int8
RECORD, ARTIFACT, RESULT = "tries.jsonl", "tuned.onnx", "result.json"
_FINAL = Effort(processes=6, half_width=0.005, seconds=1.5)


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What came out.

    Attributes:
        file: the artefact; its provenance lies beside it.
        choice: which it is: `tuned`, `full int8` or `float`.
        why: in words, where it is not the tuned one.
        decision: where its Q/DQ are.
        sites: how many choices there were.
        against: the artefact's time in relation to the float and the full int8 network, by their names.
        tuned_against: the tuned file's, whichever was chosen.
        median_us: of each in the final measurement.
        fidelity: of the artefact and of full int8, on data that the search has not seen.
        tries: files that were tried.
        steps: how often one of them became the best.
    """

    file: Path
    choice: str
    why: str
    decision: Decision
    sites: int
    against: dict[str, Ratio]
    tuned_against: dict[str, Ratio]
    median_us: dict[str, float]
    fidelity: dict[str, Fidelity]
    tries: int
    steps: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "origin": "measured",
            "file": self.file.name,
            "choice": self.choice,
            "why": self.why,
            "decisions": self.decision.to_json(),
            "sites": self.sites,
            "against": {name: _plain(ratio) for name, ratio in self.against.items()},
            "tuned_against": {name: _plain(ratio) for name, ratio in self.tuned_against.items()},
            "median_us": self.median_us,
            "agreement_percent": {name: each.agreement_percent for name, each in self.fidelity.items()},
            "sqnr_db": {name: each.mean_sqnr_db for name, each in self.fidelity.items()},
            "tries": self.tries,
            "steps": self.steps,
        }


def _plain(ratio: Ratio) -> dict[str, float]:
    return {"value": ratio.value, "low": ratio.low, "high": ratio.high, "rounds": ratio.rounds}


def autotune(
    quantized: QuantizedModel,
    reference: CapturedModel,
    *,
    runtime: str,
    search_samples: Sequence[Arrays],
    held_out: Sequence[Arrays],
    out: Path,
    budget: Budget | None = None,
    threads: int = 1,
    judge: Judge | None = None,
    predict: Predict | None = None,
    progress: Callable[[int, str], None] | None = None,
) -> Tuned:
    """Chooses where Q/DQ go, by measured latency and measured closeness to the float network together.

    The folder holds the record of every try; called again with the same network, data and runtime, the search goes on
    where it was stopped. The artefact is never slower than the float and the full int8 network: all three are
    measured against each other at the end, and if the tuned one does not keep within `NEVER_SLOWER` of both, the
    fastest of them is the artefact.

    Args:
        quantized: the network with everything in low precision that its scheme allows.
        reference: the same network in float, as it was quantized (batch norms folded, biases not corrected).
        runtime: a backend that reads ONNX files.
        search_samples: inputs by the names in the file; the first is what is timed.
        held_out: other inputs, which the search does not see.
        out: the folder.
        budget: when to stop; 40 tries by default.
        threads: of the runtime.
        judge: makes what judges files on samples; their results on the runtime beside the float file's by default.
        predict: a model of an artefact's latency, to order tries; nothing is decided by it.
        progress: called with the number of tries and a note.

    Raises:
        InputError: there is nothing to choose, no data, or the folder holds the record of something else.
        MissingExtraError: the runtime is not installed.
    """
    sites = find_sites(quantized.captured.graph, quantized.plan)
    if not sites.by_name:
        raise InputError("nothing is quantized in this network, so there is nothing to choose")
    if not search_samples or not held_out:
        raise InputError("autotune needs samples to search with and others to check its result with")
    candidates = Candidates(quantized=quantized, reference=reference, sites=sites)
    header = {"network": _digest(reference, sites, search_samples), **_conditions(runtime, threads)}
    journal, work = Journal(out / RECORD, header), out / "candidates"
    work.mkdir(exist_ok=True)
    lab = Laboratory(
        candidates=candidates,
        runtime=runtime,
        threads=threads,
        samples=search_samples,
        judge=judge or partial(_on_runtime, runtime=runtime, threads=threads),
        journal=journal,
        budget=budget or Budget(),
        folder=work,
        progress=progress or (lambda done, note: None),
    )
    search = Search(lab=lab, predict=predict)
    search.run()
    tuned = _finish(lab, search, held_out, out)
    (out / RESULT).write_text(json.dumps(tuned.to_json(), indent=1))
    shutil.rmtree(work)
    return tuned


def _on_runtime(float_file: Path, samples: Sequence[Arrays], *, runtime: str, threads: int) -> Accuracy:
    return RuntimeAccuracy(float_file, samples, runtime, threads=threads)


def _finish(lab: Laboratory, search: Search, held_out: Sequence[Arrays], out: Path) -> Tuned:
    """Checks the result on data and in measurements that the search has not seen."""
    full = lab.name(Decision())

    @cache
    def accuracy() -> Accuracy:  # only where the record lacks an answer: it runs the float network on all samples
        return lab.judge(lab.file(FLOAT), held_out)

    def fidelity(name: str) -> Fidelity:
        return Fidelity.from_json(lab.journal.ask({"held out": name}, lambda: accuracy()(lab.file(name)).to_json()))

    why = "the search found nothing faster than full int8" if len(search.steps) == 1 else ""
    best = full
    for decision in reversed(search.steps):
        best = lab.name(decision)
        loss = worse(fidelity(best), fidelity(full))
        if loss is None:
            break
        why = f"a faster one was given up: on data that the search had not seen, its {loss}"
    medians, ratios = _compare(lab, full, best)
    tuned_against = {FLOAT: ratios[TUNED, FLOAT], FULL: ratios[TUNED, FULL]}
    choice = TUNED if best != full else FULL
    if any(ratio.high > NEVER_SLOWER for ratio in tuned_against.values()):
        choice = min(medians, key=lambda name: medians[name])
        slower = ", ".join(f"{ratio} of {name}" for name, ratio in tuned_against.items() if ratio.high > NEVER_SLOWER)
        why = f"the tuned file takes {slower}: not surely within {NEVER_SLOWER}, so the fastest of the three is kept"
    names = {TUNED: best, FULL: full, FLOAT: FLOAT}
    file = _deliver(lab, names[choice], out)
    return Tuned(
        file=file, choice=choice, why=why, sites=len(lab.candidates.sites.by_name),
        decision=_decision(lab, names[choice]),
        against={name: ratios[choice, name] for name in (FLOAT, FULL)}, tuned_against=tuned_against,
        median_us=medians, fidelity={"artefact": fidelity(names[choice]), FULL: fidelity(full)},
        tries=lab.tries, steps=len(search.steps) - 1,
    )  # fmt: skip


def _decision(lab: Laboratory, name: str) -> Decision:
    return Decision(floats=frozenset(lab.candidates.sites.by_name)) if name == FLOAT else lab.decision(name)


def _compare(lab: Laboratory, full: str, best: str) -> tuple[dict[str, float], dict[tuple[str, str], Ratio]]:
    """Medians, and the ratio of each to each, over rounds of several fresh processes."""
    labels = {FLOAT: FLOAT, FULL: full} | ({TUNED: best} if best != full else {})
    names = list(labels.values())
    measured = Placements.from_json(
        lab.journal.ask({"final": names}, lambda: {"times_us": lab.measure(names, _FINAL).to_json()})["times_us"]
    )
    labels.setdefault(TUNED, full)
    medians = {label: measured.median_us(name) for label, name in labels.items()}
    return medians, {(a, b): measured.ratio(labels[a], labels[b]) for a in labels for b in labels}


def _deliver(lab: Laboratory, name: str, out: Path) -> Path:
    """The chosen file and its provenance at their place."""
    source, file = lab.file(name), out / ARTIFACT
    for suffix in (".provenance.json", ".onnx"):
        shutil.copyfile(source.with_suffix(suffix), file.with_suffix(suffix))
    return file


def _conditions(runtime: str, threads: int) -> dict[str, Any]:
    machine = this_machine()
    version = get_backend(runtime).version()
    return {"runtime": runtime, "version": version, "threads": threads, "cpu": machine.cpu_model}


def _digest(reference: CapturedModel, sites: Sites, samples: Sequence[Arrays]) -> str:
    """Of what answers hang on besides the machine: float weights, plan, data."""
    digest = hashlib.sha256()
    for name, value in sorted(reference.values.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.detach().cpu().float().numpy()).tobytes())
    digest.update(repr(sorted((str(ref), repr(spec)) for ref, spec in sites.plan.activations.items())).encode())
    for sample in samples:
        for name, array in sorted(sample.items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
