"""Does a search lose a trial, or tell one twice, when everything it runs on is killed again and again?

One study of 300 trials in PostgreSQL, its candidates evaluated by four workers of a Dask scheduler over TLS. While it
goes on, 50 workers, 10 drivers and 5 schedulers are killed with SIGKILL, and the database is stopped twice as by a
crash; each is started again as a supervisor would. Batches of four: the front has to be that of the undisturbed search.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna

from bitwright.experiments.benchmarks import made_up_search
from bitwright.experiments.benchmarks.context import Bench
from bitwright.experiments.benchmarks.killable_cluster import Supervised, supervised_search
from bitwright.experiments.benchmarks.loopback_postgresql import LoopbackPostgresql, loopback_postgresql, programs
from bitwright.experiments.benchmarks.records import Reach, Record, record
from bitwright.nas.result import Result
from bitwright.nas.search import search
from bitwright.nas.space import Candidate
from bitwright.nas.workers import InProcess
from bitwright.quant.errors import InputError

ROW = "search_kills"
TRIALS, BATCH, WORKERS = 300, 4, 4
KILLS = {"worker": 50, "driver": 10, "scheduler": 5, "database": 2}
SECONDS = 0.3  # of an evaluation
SEED = 20261127
_MOST_S = 1500.0
_DATABASE_AWAY_S = 3.0


def run(bench: Bench) -> list[Record]:
    """Disturbed and undisturbed."""
    found = programs()
    if found is None:
        raise InputError("row search_kills needs PostgreSQL: apt install postgresql")
    with tempfile.TemporaryDirectory() as name, loopback_postgresql(found) as database:
        folder = Path(name)
        wall_s, kills = _disturbed(folder, database)
        trials = optuna.load_study(
            study_name="search", storage=database.url.replace("postgresql:", "postgresql+psycopg:")
        ).get_trials(deepcopy=False)
        results = {path.stem: path.read_bytes() for path in (folder / "search" / "results").glob("*.json")}
        log = (folder / "search" / made_up_search.LOG).read_text().split()
        alone = search(
            made_up_search.Space(),
            made_up_search.made_up_workload(),
            made_up_search.settings(TRIALS, BATCH),
            folder / "alone",
            workers=InProcess(made_up_search.evaluate),
        )
    return _records(trials, results, Counter(log), alone.trials, kills, wall_s)


def _disturbed(folder: Path, database: LoopbackPostgresql) -> tuple[float, Counter[str]]:
    """Lets the search run to its end among kills, which are spread evenly over its results."""
    luck = random.Random(SEED)
    events = [kind for kind, count in KILLS.items() for _ in range(count)]
    luck.shuffle(events)
    request = {
        "folder": str(folder / "search"), "scheduler": "SCHEDULER", "database": database.url, "trials": TRIALS,
        "batch": BATCH, "seconds": SECONDS,
    }  # fmt: skip
    driver = {"module": "bitwright.experiments.benchmarks.made_up_search", "request": json.dumps(request)}
    began, done, kills = time.monotonic(), 0, Counter[str]()
    with supervised_search(folder, WORKERS, driver) as (processes, _):
        while not processes.done:
            if time.monotonic() - began > _MOST_S:
                raise InputError(
                    f"the search did not end in {_MOST_S:.0f} s; its log: {processes.log.read_text()[-2000:]}"
                )
            processes.tend()
            results = sum(1 for _ in (folder / "search" / "results").glob("*.json"))
            if done < len(events) and results > (done + 1) * TRIALS / (len(events) + 2):
                kills[events[done]] += _disturb(events[done], processes, database, luck)
                done += 1
            time.sleep(0.1)
    return time.monotonic() - began, kills


def _disturb(kind: str, processes: Supervised, database: LoopbackPostgresql, luck: random.Random) -> bool:
    time.sleep(luck.random())
    if kind != "database":
        return processes.kill(kind, luck)
    database.stop()
    time.sleep(_DATABASE_AWAY_S)
    database.start()
    return True


def _records(
    trials: list[optuna.trial.FrozenTrial],
    results: dict[str, bytes],
    evaluations: Counter[str],
    alone: Any,
    kills: Counter[str],
    wall_s: float,
) -> list[Record]:
    keys = [each.user_attrs.get("candidate", {}).get("key") for each in trials]
    lost = sum(not each.state.is_finished() or key not in results for each, key in zip(trials, keys, strict=True))
    expected = [(each.number, each.result.key) for each in alone]
    found = [(each.number, key) for each, key in zip(trials, keys, strict=True)]
    again = sum(_bits(made_up_search.result_of(Candidate(Result.model_validate_json(each).values))) != each
                for each in results.values())  # fmt: skip
    table = [
        {
            "killed": ", ".join(f"{count} {kind}" for kind, count in kills.items()),
            "trials": len(trials),
            "candidates": len(results),
            "evaluated more than once": sum(count > 1 for count in evaluations.values()),
            "most evaluations of one": max(evaluations.values()),
            "wall s": f"{wall_s:.0f}",
        }
    ]
    common: dict[str, Any] = {"area": "nas", "n": len(trials), "table": table}
    return [
        record(f"{ROW}.kills", value=kills.total(), unit="kills", reach=Reach("≥", sum(KILLS.values())), **common),
        record(f"{ROW}.lost", value=lost, unit="trials", reach=Reach("=", 0), **common),
        record(
            f"{ROW}.unlike_undisturbed",
            value=sum(a != b for a, b in zip(found, expected, strict=False)) + abs(len(found) - len(expected)),
            unit="trials",
            reach=Reach("=", 0),
            **common,
        ),
        record(f"{ROW}.other_bits", value=again, unit="results", reach=Reach("=", 0), **common),
    ]


def _bits(result: Result) -> bytes:
    return result.model_dump_json(indent=1).encode() + b"\n"
