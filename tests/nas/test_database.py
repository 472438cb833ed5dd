"""Studies in PostgreSQL, in a server of the tests' own; skipped where PostgreSQL is not installed."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from bitwright.experiments.benchmarks.loopback_postgresql import LoopbackPostgresql, loopback_postgresql, programs
from bitwright.nas import storage
from bitwright.nas.result import Result
from bitwright.nas.search import search
from bitwright.nas.search_outcome import SearchOutcome, Told
from bitwright.nas.setup import Setup
from bitwright.nas.space import Candidate
from bitwright.nas.workers import InProcess
from bitwright.quant.errors import InputError

REQUIRED = os.environ.get("BITWRIGHT_REQUIRE_POSTGRESQL") == "1"


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackPostgresql]:
    found = programs()
    if found is None:
        if REQUIRED:
            pytest.fail("BITWRIGHT_REQUIRE_POSTGRESQL is set, but PostgreSQL is not installed")
        pytest.skip("PostgreSQL is not installed (apt install postgresql)")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with loopback_postgresql(found) as running:
        yield running


def run(
    server: LoopbackPostgresql,
    synthetic: ModuleType,
    folder: Path,
    name: str,
    *,
    trials: int = 12,
) -> SearchOutcome:
    def score(candidate: Candidate, setup: Setup) -> Result:
        result: Result = synthetic.evaluate(candidate, setup)
        return result

    return search(
        synthetic.Space(), synthetic.Workload(), synthetic.settings(trials), folder,
        workers=InProcess(score), database=server.url, name=name,
    )  # fmt: skip


def test_a_study_in_postgresql_is_the_one_in_sqlite(
    server: LoopbackPostgresql, synthetic: ModuleType, tmp_path: Path
) -> None:
    first = run(server, synthetic, tmp_path / "shared", "same", trials=6)
    both = run(server, synthetic, tmp_path / "shared", "same")
    assert both.results[:6] == first.results
    assert both.results == synthetic.run(tmp_path / "alone", trials=12).results


def test_a_restarted_database_loses_nothing(
    server: LoopbackPostgresql, synthetic: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gone while a candidate is evaluated, so that it cannot be told, and again before the next can be asked for."""
    monkeypatch.setattr(storage, "_BETWEEN_TRIES_S", 0.1)
    folder, said = tmp_path / "shared", list[str]()

    def score(candidate: Candidate, setup: Setup) -> Result:
        result: Result = synthetic.evaluate(candidate, setup)
        if len((folder / synthetic.LOG).read_text().split()) == 3:
            server.stop()
        return result

    def stop(told: Told) -> None:
        if told.number == 7:
            server.stop()

    def start(text: str) -> None:
        said.append(text)
        server.start()

    outcome = search(
        synthetic.Space(), synthetic.Workload(), synthetic.settings(12), folder,
        workers=InProcess(score), database=server.url, name="restarted", on_told=stop, on_wait=start,
    )  # fmt: skip
    assert outcome.results == synthetic.run(tmp_path / "alone", trials=12).results
    assert [each.number for each in outcome.trials] == list(range(len(outcome.trials)))
    counts = Counter((folder / synthetic.LOG).read_text().split())
    assert set(counts.values()) == {1}
    assert len(said) == 2 and all(text.startswith(f"database {server.url} does not answer (") for text in said)


def test_a_lost_database_ends_the_search_cleanly(
    server: LoopbackPostgresql, synthetic: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PATIENCE_S", 2.0)

    def stop(told: Told) -> None:
        if told.number == 3:
            server.stop()

    def score(candidate: Candidate, setup: Setup) -> Result:
        return synthetic.evaluate(candidate, setup)  # type: ignore[no-any-return]

    with pytest.raises(
        InputError,
        match=r"does not answer for 2 s; what was told is safe, the same search goes on \(connection failed: ",
    ):
        search(
            synthetic.Space(), synthetic.Workload(), synthetic.settings(8), tmp_path,
            workers=InProcess(score), database=server.url, name="lost", on_told=stop,
        )  # fmt: skip
    server.start()
    outcome = run(server, synthetic, tmp_path, "lost", trials=8)
    assert outcome.results == synthetic.run(tmp_path / "alone", trials=8).results


def test_a_second_driver_of_a_study_is_refused(
    server: LoopbackPostgresql, synthetic: ModuleType, tmp_path: Path
) -> None:
    def second(told: Told) -> None:
        message = r"another process drives study 'one'; wait for it, or give this search another name"
        with pytest.raises(InputError, match=message):
            run(server, synthetic, tmp_path / "second", "one")

    def score(candidate: Candidate, setup: Setup) -> Result:
        return synthetic.evaluate(candidate, setup)  # type: ignore[no-any-return]

    search(
        synthetic.Space(), synthetic.Workload(), synthetic.settings(4), tmp_path / "first",
        workers=InProcess(score), database=server.url, name="one", on_told=second,
    )  # fmt: skip


def test_another_definition_under_the_same_name_is_refused(
    server: LoopbackPostgresql, synthetic: ModuleType, tmp_path: Path
) -> None:
    run(server, synthetic, tmp_path, "defined", trials=2)
    with pytest.raises(
        InputError, match=r"study 'defined': this study was begun with something else: space\.depth was"
    ):
        search(
            synthetic.Space(depths=(1, 2)), synthetic.Workload(), synthetic.settings(2), tmp_path,
            database=server.url, name="defined",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host/studies", "postgresql://me:***@host/studies"),
        ("postgresql://me:se/c@secret@host/studies", "postgresql://me:***@host/studies"),
        ("postgresql://me@host/studies?password=secret", "postgresql://me@host/studies?password=***"),
        (
            "postgresql://host/db?sslmode=require&sslpassword=secret",
            "postgresql://host/db?sslmode=require&sslpassword=***",
        ),
    ],
)
def test_a_password_in_a_recipe_is_refused_and_not_shown(
    synthetic: ModuleType, tmp_path: Path, url: str, shown: str
) -> None:
    with pytest.raises(InputError) as seen:
        search(synthetic.Space(), synthetic.Workload(), synthetic.settings(2), tmp_path, database=url)
    assert str(seen.value) == (
        f"search.storage = '{shown}': a password in a recipe is kept and shown; take it out, and set PGPASSWORD or "
        "write it to ~/.pgpass"
    )


def test_a_server_that_is_not_there_is_named(synthetic: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    url = "postgresql://127.0.0.1:9/studies"
    with pytest.raises(InputError, match=rf"search\.storage = '{url}' does not answer \(connection failed: "):
        search(synthetic.Space(), synthetic.Workload(), synthetic.settings(2), tmp_path, database=url)
