"""From a quantized network to the fastest file that one runtime has of it: float, int8, or int8 in parts."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.hw_constraints.autotune.decision import Candidates, Decision
from bitwright.hw_constraints.autotune.delivery import deliver
from bitwright.hw_constraints.autotune.fidelity import Accuracy, Fidelity, Judge, RuntimeAccuracy, worse
from bitwright.hw_constraints.autotune.final import FULL, TUNED, check_others, hold_contest
from bitwright.hw_constraints.autotune.journal import Journal
from bitwright.hw_constraints.autotune.laboratory import FLOAT, Budget, Laboratory
from bitwright.hw_constraints.autotune.search import Predict, Search
from bitwright.hw_constraints.autotune.sites import Sites, find_sites
from bitwright.hw_constraints.backends import Arrays, get_backend
from bitwright.hw_constraints.machine import this_machine
from bitwright.hw_constraints.measure import Ratio
from bitwright.quant.captured_model import CapturedModel
from bitwright.quant.errors import InputError
from bitwright.quant.quantized_model import QuantizedModel

RECORD, ARTIFACT, RESULT = "tries.jsonl", "tuned.onnx", "result.json"


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What came out.

    Attributes:
        file: the artefact, with its provenance beside it; another one's file keeps its suffix and has none.
        choice: which it is: `tuned`, `full int8`, `float` or the label of another one's file.
        why: in words, where it is not the tuned one.
        decision: where its Q/DQ are; None for another one's file.
        sites: how many choices there were.
        against: the artefact's time in relation to float, full int8 and other people's files, by their labels.
        tuned_against: the tuned file's, whichever was chosen.
        median_us: of each in the final measurement.
        fidelity: of the artefact and of full int8, on data that the search has not seen.
        tries: files that were tried.
        steps: how often one of them became the best.
    """

    file: Path
    choice: str
    why: str
    decision: Decision | None
    sites: int
    against: dict[str, Ratio]
    tuned_against: dict[str, Ratio]
    median_us: dict[str, float]
    fidelity: dict[str, Fidelity]
    tries: int
    steps: int

    @property
    def floats(self) -> frozenset[str]:
        """The sites in float, as far as they are ours to name."""
        return self.decision.floats if self.decision else frozenset()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "origin": "measured",
            "file": self.file.name,
            "choice": self.choice,
            "why": self.why,
            "decisions": self.decision and self.decision.to_json(),
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
    others: Mapping[str, Path] | None = None,
    judge: Judge | None = None,
    predict: Predict | None = None,
    progress: Callable[[int, str], None] | None = None,
) -> Tuned:
    """Chooses where Q/DQ go, by measured latency and measured closeness to the float network together.

    The folder holds the record of every try; called again with the same network, data and runtime, the search goes on
    where it was stopped. The artefact is never slower than the float network, the full int8 one and other people's
    files: all are measured against each other at the end, and if the tuned one is slower than one of them, the fastest
    is the artefact. Another one's file can only be that if it is no less faithful to float than full int8 is.

    Args:
        quantized: the network with everything in low precision that its scheme allows.
        reference: the same network in float, as it was quantized (batch norms folded, biases not corrected).
        runtime: a backend that reads ONNX files.
        search_samples: inputs by the names in the file; the first is what is timed.
        held_out: other inputs, which the search does not see.
        out: the folder.
        budget: when to stop; 40 tries by default.
        threads: of the runtime.
        others: other people's files of the same network, by what they shall be called.
        judge: makes what judges files on samples; their results on the runtime beside the float file's by default.
        predict: a model of an artefact's latency, to order tries; nothing is decided by it.
        progress: called with the number of tries and a note.

    Raises:
        InputError: there is nothing to choose, no data, another one's file is missing, or the folder holds the record
            of something else.
        MissingExtraError: the runtime is not installed.
    """
    sites = find_sites(quantized.captured.graph, quantized.plan)
    if not sites.by_name:
        raise InputError("nothing is quantized in this network, so there is nothing to choose")
    if not search_samples or not held_out:
        raise InputError("autotune needs samples to search with and others to check its result with")
    check_others(others or {})
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
        others=others or {},
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
    contest = hold_contest(lab, full, best)
    refused = {label: loss for label in lab.others if (loss := worse(fidelity(label), fidelity(full))) is not None}
    others = [label for label in lab.others if label not in refused]
    found = TUNED if best != full else FULL
    choice, lost = contest.choose(found, [FLOAT, FULL, *others])
    names = {TUNED: best, FULL: full, FLOAT: FLOAT, **{label: label for label in lab.others}}
    beside = (FLOAT, FULL, *lab.others)
    remarks = [lost or why, *(f"{label} cannot be taken: its {loss}" for label, loss in refused.items())]
    return Tuned(
        file=deliver(lab.file(names[choice]), out / ARTIFACT), choice=choice, why="; ".join(filter(None, remarks)),
        sites=len(lab.candidates.sites.by_name), decision=_decision(lab, names[choice]),
        against=contest.against(choice, beside), tuned_against=contest.against(TUNED, beside),
        median_us=contest.median_us, fidelity={"artefact": fidelity(names[choice]), FULL: fidelity(full)},
        tries=lab.tries, steps=len(search.steps) - 1,
    )  # fmt: skip


def _decision(lab: Laboratory, name: str) -> Decision | None:
    if name in lab.others:
        return None
    return Decision(floats=frozenset(lab.candidates.sites.by_name)) if name == FLOAT else lab.decision(name)


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
