"""Optuna's own dashboard opens the study of a search."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _get(address: str, process: subprocess.Popen[bytes]) -> Any:
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, process.returncode
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.slow
def test_the_dashboard_shows_every_trial(synthetic: ModuleType, tmp_path: Path) -> None:
    command = shutil.which("optuna-dashboard", path=str(Path(sys.executable).parent))
    if command is None:
        pytest.skip("optuna-dashboard is not installed: pip install 'bitwright[dashboard]'")
    outcome = synthetic.run(tmp_path, trials=12)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [command, f"sqlite:///{tmp_path / 'study.db'}", "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        address = f"http://127.0.0.1:{port}/api/studies"
        (summary,) = _get(address, process)["study_summaries"]
        assert summary["study_name"] == "search"
        assert summary["directions"] == ["maximize", "minimize"]
        study = _get(f"{address}/{summary['study_id']}", process)
        states = [each["state"] for each in study["trials"]]
        assert len(states) == len(outcome.trials)
        assert states.count("Complete") == sum(each.result.outcome == "scored" for each in outcome.trials)
        assert study["objective_names"] == ["accuracy", "macs"]
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_dasks_own_page_is_served_where_it_can_be() -> None:
    pytest.importorskip("bokeh", reason="pip install 'bitwright[dashboard]'")
    from bitwright.nas.cluster import local_cluster

    with local_cluster(1) as cluster:
        assert cluster.dashboard is not None
        with urllib.request.urlopen(cluster.dashboard, timeout=30) as answer:
            assert answer.status == 200
