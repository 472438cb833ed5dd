"""Two processes by `torchrun` on gloo; what they do is in `distributed_worker`."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import onnxruntime
import pytest
import torch

from .conftest import batch
from .distributed_worker import QUICK, STEPS, THOROUGH, alone, alone_in_regions

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch is built without distributed")


def two_processes(folder: Path, parts: Iterable[str]) -> Path:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, Path(__file__).with_name("distributed_worker.py"), folder, *parts],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_processes(tmp_path_factory.mktemp("two_processes"), QUICK)


@pytest.fixture(scope="module")
def thorough(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_processes(tmp_path_factory.mktemp("thorough"), THOROUGH)


@pytest.mark.parametrize(("name", "options"), [("lsq", "lsq"), ("sharded", "lsq")])
def test_two_processes_are_one_that_accumulates(trained: Path, name: str, options: str) -> None:
    check_one(trained, name, options, alone(options))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"), [("ranges", "ranges"), ("damped", "damped"), ("sharded_damped", "damped")]
)
def test_two_processes_are_one_with_other_options(thorough: Path, name: str, options: str) -> None:
    check_one(thorough, name, options, alone(options))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [("ways", "ranges"), ("loops", "lsq")])
def test_two_processes_train_regions_as_one_does(thorough: Path, name: str, options: str) -> None:
    """Ways of the processes differ in each step, and a loop is sharded that counts by the data."""
    check_one(thorough, name, options, alone_in_regions(name))
    files = {"ways": ["head", "long", "short", "stem"], "loops": ["cell", "embed", "head"]}[name]
    assert sorted(thorough.glob(f"{name}.*.onnx")) == [thorough / f"{name}.{each}.onnx" for each in files]
    if name == "loops":
        assert torch.equal(*(torch.load(thorough / f"loops_run_{rank}.pt") for rank in range(2)))


def check_one(folder: Path, name: str, options: str, one: dict[str, torch.Tensor]) -> None:
    first, second = (torch.load(folder / f"{name}_{rank}.pt") for rank in range(2))
    assert list(first) == list(second) == list(one)
    for key, tensor in first.items():
        assert torch.equal(tensor, second[key]), key
        if options == "lsq" and key.endswith("weight.log_ratio"):
            # A weight on a tie falls to either side of it, which the learned scale of its channel feels as a step.
            assert (tensor - one[key]).norm() < 0.1 * one[key].norm(), key
            continue
        # Gradients are summed in another order, and that of a learned scale is what two sums of 1e3 times its size
        # leave: float32 roundings over 4 steps of 1e-2.
        atol = 1e-5 if options == "lsq" else 1e-6
        torch.testing.assert_close(tensor, one[key], rtol=1e-4, atol=atol, msg=lambda text, key=key: f"{key}: {text}")
    assert int(first["qat_quantizers.step"]) == STEPS
    assert (folder / f"{name}.onnx").exists() or (folder / f"{name}.regions.json").exists()


def test_processes_with_scales_of_their_own_are_told(trained: Path) -> None:
    messages = [(trained / f"unwrapped_{rank}.txt").read_text() for rank in range(2)]
    assert messages[0] == messages[1]
    assert messages[0].startswith("step 1: the 2 processes have different scales, first at ")
    assert messages[0].endswith(
        "; wrap the model in DistributedDataParallel (or fully_shard) after the callback is attached, so that "
        "gradients are averaged"
    )


def test_a_sharded_network_is_deployed_whole(trained: Path) -> None:
    results = [torch.load(trained / f"sharded_run_{rank}.pt") for rank in range(2)]
    assert torch.equal(*results)
    session = onnxruntime.InferenceSession(trained / "sharded.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: batch(1)[0].numpy()})
    torch.testing.assert_close(torch.from_numpy(found), results[0], atol=0.05, rtol=0.0)


def test_a_network_that_is_sharded_already_is_refused(trained: Path) -> None:
    message = "the model is sharded already; attach the callback before fully_shard"
    assert [(trained / f"late_{rank}.txt").read_text() for rank in range(2)] == [message] * 2


@pytest.mark.slow
def test_stages_of_a_sharded_network_are_refused(thorough: Path) -> None:
    message = (
        "schedule.stages: fully_shard has left each process a part of the weights, from which no scale can start anew; "
        "use DistributedDataParallel, or leave stages out"
    )
    assert [(thorough / f"staged_{rank}.txt").read_text() for rank in range(2)] == [message] * 2
