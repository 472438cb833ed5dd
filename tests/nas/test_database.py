"""Studies in PostgreSQL, in a server of the tests' own; skipped where PostgreSQL is not installed."""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from bitwright.nas import storage
from bitwright.nas.result import Result
from bitwright.nas.search import search
from bitwright.nas.search_outcome import SearchOutcome, Told
from bitwright.nas.setup import Setup
from bitwright.nas.space import Candidate
from bitwright.nas.workers import InProcess
from bitwright.quant.errors import InputError

REQUIRED = os.environ.get("BITWRIGHT_REQUIRE_POSTGRESQL") == "1"


@dataclass(frozen=True)
class Server:
    """A server in a folder of its own; as root it runs as the user `postgres`, since it refuses root."""

    programs: Path
    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def call(self, program: str, *arguments: str) -> None:
        user = "postgres" if os.geteuid() == 0 else None
        subprocess.run(
            [self.programs / program, *arguments], check=True, user=user, stdout=subprocess.DEVNULL, cwd=self.folder
        )

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off"
        self.call("pg_ctl", "start", "-w", "-D", f"{self.folder}/data", "-o", options, "-l", f"{self.folder}/log")

    def stop(self) -> None:
        self.call("pg_ctl", "stop", "-w", "-m", "immediate", "-D", f"{self.folder}/data")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        if REQUIRED:
            pytest.fail("BITWRIGHT_REQUIRE_POSTGRESQL is set, but there is no /usr/lib/postgresql/*/bin/initdb")
        pytest.skip("PostgreSQL is not installed (apt install postgresql)")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    folder = Path(tempfile.mkdtemp(prefix="bitwright-postgresql-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    running = Server(found[-1].parent, folder, port)
    running.call("initdb", "-D", f"{folder}/data", "-U", "postgres", "--auth", "trust", "--no-sync")
    running.start()
    yield running
    running.stop()
    shutil.rmtree(folder)


def run(
    server: Server,
    synthetic: ModuleType,
    folder: Path,
    name: str,
    *,
    trials: int = 12,
    seconds: float = 0.0,
    said: list[str] | None = None,
) -> SearchOutcome:
    def score(candidate: Candidate, setup: Setup) -> Result:
        result: Result = synthetic.evaluate(candidate, setup, seconds=seconds)
        return result

    return search(
        synthetic.Space(), synthetic.Workload(), synthetic.settings(trials), folder,
        workers=InProcess(score), database=server.url, name=name, on_wait=(said if said is not None else []).append,
    )  # fmt: skip


def test_a_study_in_postgresql_is_the_one_in_sqlite(server: Server, synthetic: ModuleType, tmp_path: Path) -> None:
    first = run(server, synthetic, tmp_path / "shared", "same", trials=6)
    both = run(server, synthetic, tmp_path / "shared", "same")
    assert both.results[:6] == first.results
    assert both.results == synthetic.run(tmp_path / "alone", trials=12).results


def test_a_restarted_database_loses_nothing(server: Server, synthetic: ModuleType, tmp_path: Path) -> None:
    said: list[str] = []

    def restart() -> None:
        for _ in range(2):
            server.stop()
            time.sleep(1.5)
            server.start()
            time.sleep(1)

    disturbance = threading.Timer(0.7, restart)
    disturbance.start()
    outcome = run(server, synthetic, tmp_path / "shared", "restarted", trials=20, seconds=0.25, said=said)
    disturbance.join()
    assert outcome.results == synthetic.run(tmp_path / "alone", trials=20).results
    assert [each.number for each in outcome.trials] == list(range(len(outcome.trials)))
    counts = Counter((tmp_path / "shared" / synthetic.LOG).read_text().split())
    assert set(counts.values()) == {1}
    assert said and all(text.startswith(f"database {server.url} does not answer (") for text in said)


def test_a_lost_database_ends_the_search_cleanly(
    server: Server, synthetic: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PATIENCE_S", 2.0)

    def stop(told: Told) -> None:
        if told.number == 3:
            server.stop()

    def score(candidate: Candidate, setup: Setup) -> Result:
        return synthetic.evaluate(candidate, setup)  # type: ignore[no-any-return]

    with pytest.raises(InputError, match=r"does not answer for 2 s; what was told is safe, the same search goes on"):
        search(
            synthetic.Space(), synthetic.Workload(), synthetic.settings(8), tmp_path,
            workers=InProcess(score), database=server.url, name="lost", on_told=stop,
        )  # fmt: skip
    server.start()
    outcome = run(server, synthetic, tmp_path, "lost", trials=8)
    assert outcome.results == synthetic.run(tmp_path / "alone", trials=8).results


def test_a_second_driver_of_a_study_is_refused(server: Server, synthetic: ModuleType, tmp_path: Path) -> None:
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
    server: Server, synthetic: ModuleType, tmp_path: Path
) -> None:
    run(server, synthetic, tmp_path, "defined", trials=2)
    with pytest.raises(
        InputError, match=r"study 'defined': this study was begun with something else: space\.depth was"
    ):
        search(
            synthetic.Space(depths=(1, 2)), synthetic.Workload(), synthetic.settings(2), tmp_path,
            database=server.url, name="defined",
        )  # fmt: skip


def test_a_password_in_a_recipe_is_refused_and_not_shown(synthetic: ModuleType, tmp_path: Path) -> None:
    url = "postgresql://me:secret@host/studies"
    with pytest.raises(
        InputError, match=r"search\.storage = 'postgresql://me:\*\*\*@host/studies': a password"
    ) as seen:
        search(synthetic.Space(), synthetic.Workload(), synthetic.settings(2), tmp_path, database=url)
    assert "secret" not in str(seen.value)


def test_a_server_that_is_not_there_is_named(synthetic: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    url = "postgresql://127.0.0.1:9/studies"
    with pytest.raises(InputError, match=rf"search\.storage = '{url}' does not answer \(connection failed: "):
        search(synthetic.Space(), synthetic.Workload(), synthetic.settings(2), tmp_path, database=url)
