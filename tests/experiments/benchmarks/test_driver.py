from dataclasses import replace

import numpy as np
import pytest

from bitwright.experiments.benchmarks.peers import asking
from bitwright.experiments.benchmarks.peers.driver import PeerJob, run_peer
from bitwright.experiments.benchmarks.peers.environments import OURS
from bitwright.experiments.benchmarks.peers.workers import exchange
from bitwright.quant.errors import InputError

WORKER = """
import numpy as np
from exchange import Quantized, serve

def quantize(network, request):
    total = sum(float(batch.sum()) for batch in request.batches(3))
    (open(request.folder + "/quantized.onnx", "w")).write(f"{request.method} {request.count} {total}")
    forward = lambda images: images.reshape(len(images), -1)[:, :2] * 2
    return Quantized(file=request.folder + "/quantized.onnx", forward=forward, note="doubled")

if __name__ == "__main__":
    serve(("numpy",), lambda request: None, quantize)
"""


@pytest.fixture
def job(tmp_path, monkeypatch):
    workers = tmp_path / "workers"
    workers.mkdir()
    (workers / "bitwright_worker.py").write_text(WORKER)
    (workers / "exchange.py").write_text((asking.WORKERS / "exchange.py").read_text())
    monkeypatch.setattr(asking, "WORKERS", workers)
    float_file, calibration, scored = (tmp_path / name for name in ("float.onnx", "calibration.npy", "scored.npy"))
    float_file.write_bytes(b"")
    np.save(calibration, np.ones((4, 1, 1, 2), np.float32))
    np.save(scored, np.arange(44, dtype=np.float32).reshape(22, 1, 1, 2))
    return PeerJob(
        peer=OURS, method="fast", network="tiny", float_file=float_file, calibration=calibration, scored=scored
    )


def test_a_worker_gets_the_request_and_its_answer_comes_back(job, tmp_path):
    result = run_peer(job, home=tmp_path, cache=tmp_path / "cache")
    assert result.file.read_text() == "fast 4 8.0"
    np.testing.assert_array_equal(result.score(job.scored), 2 * np.arange(44).reshape(22, 2))
    assert result.answer.note == "doubled"
    assert result.answer.wall_s > 0
    assert result.answer.peak_mb >= result.answer.growth_mb >= 0
    assert result.answer.versions == {"numpy": np.__version__}


def test_repetition_stands_for_more_images(job, tmp_path):
    result = run_peer(replace(job, repeat=3, scored=None), home=tmp_path, cache=tmp_path / "cache")
    assert result.file.read_text() == "fast 12 24.0"


def test_a_result_is_kept_until_something_changes(job, tmp_path):
    def ran():
        return run_peer(job, home=tmp_path, cache=tmp_path / "cache").file.stat().st_mtime_ns

    first = ran()
    assert ran() == first
    assert run_peer(job, home=tmp_path, cache=tmp_path / "cache", fresh=True).file.stat().st_mtime_ns != first
    np.save(job.calibration, np.ones((5, 1, 1, 2), np.float32))
    assert run_peer(job, home=tmp_path, cache=tmp_path / "cache").file.read_text() == "fast 5 10.0"


def test_a_failing_worker_is_quoted(job, tmp_path):
    (asking.WORKERS / "bitwright_worker.py").write_text("raise SystemExit('no such kernel')")
    with pytest.raises(InputError, match=r"peer 'bitwright' failed on fast on tiny \(log: .*\):\nno such kernel"):
        run_peer(job, home=tmp_path, cache=tmp_path / "cache")


def test_a_failed_run_is_not_kept(job, tmp_path):
    worker = asking.WORKERS / "bitwright_worker.py"
    worker.write_text(WORKER.replace("    serve(", "    raise SystemExit('late')\n    serve("))
    with pytest.raises(InputError, match="late"):
        run_peer(job, home=tmp_path, cache=tmp_path / "cache")
    worker.write_text(WORKER)
    assert run_peer(job, home=tmp_path, cache=tmp_path / "cache").answer.note == "doubled"


def test_a_peer_that_is_not_installed_says_how(job, tmp_path):
    with pytest.raises(InputError, match=r"peer 'nncf' is not installed: python -m .*\.setup_peers nncf"):
        run_peer(replace(job, peer="nncf"), home=tmp_path, cache=tmp_path)


def test_peak_memory_is_that_of_this_process():
    before = exchange.peak_mb()
    block = np.ones(40_000_000)
    assert exchange.peak_mb() >= before
    assert exchange.peak_mb() > block.nbytes / 1e6
