"""What every transport must do. Android's is tried against a fake `adb` that runs the shell line here."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bitwright.hw_constraints.measure import measure_files
from bitwright.hw_constraints.transport import Device, list_transports, measure_files_on, open_transport, parse_address
from bitwright.hw_constraints.transport.failures import DeviceError, LacksSoftware, Vanished
from bitwright.quant.errors import InputError

FAKE_ADB = """#!/bin/sh
# adb -s SERIAL shell -T LINE; what a shell of the second protocol does: bytes unchanged, the command's exit code.
[ "$1" = -s ] && [ "$3 $4" = "shell -T" ] || { echo "adb: usage" >&2; exit 1; }
[ "$2" = gone ] && { echo "error: device 'gone' not found" >&2; exit 1; }
[ "$2" = cut ] && { echo "error: closed" >&2; exit 1; }
exec /bin/sh -c "$5"
"""
COPY = "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"


@pytest.fixture
def fake_adb(tmp_path, monkeypatch):
    folder = tmp_path / "platform-tools"
    folder.mkdir()
    (folder / "adb").write_text(FAKE_ADB)
    (folder / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def addresses(ssh_address, local_address, fake_adb, tmp_path):
    path = f"{tmp_path / 'device'}?python={sys.executable}&lock={tmp_path / 'device.lock'}"
    return {"ssh": ssh_address, "local": local_address, "adb": f"adb://serial{path}"}


@pytest.fixture(params=list_transports())
def address(request, addresses):
    return addresses[request.param]


@pytest.fixture
def transport(address):
    way = open_transport(address)
    yield way
    way.close()


def test_bytes_pass_unchanged_in_both_directions(transport):
    every = bytes(range(256)) * 2000
    answer = transport.execute([sys.executable, "-c", COPY], every, timeout_s=20)
    assert (answer.code, answer.output) == (0, every)


def test_arguments_pass_unchanged(transport):
    strange = ["a b", "$HOME", "'", '"', "*", "a\\nb", "", "~", ";exit 3", "é"]
    program = "import json, os, sys; print(json.dumps([os.fsencode(each).decode() for each in sys.argv[1:]]))"
    answer = transport.execute([sys.executable, "-c", program, *strange], b"", timeout_s=20)
    assert json.loads(answer.output) == strange


def test_the_exit_code_and_standard_error_come_back(transport):
    answer = transport.execute([sys.executable, "-c", "import sys; sys.exit('so it ended')"], b"", timeout_s=20)
    assert answer.code == 1
    assert "so it ended" in answer.errors


def test_a_command_that_takes_too_long_counts_as_vanished(transport):
    with pytest.raises(Vanished, match=r"no answer within 1 s"):
        transport.execute([sys.executable, "-c", "import time; time.sleep(30)"], b"", timeout_s=1)


def test_it_can_be_used_again_after_that(transport):
    with pytest.raises(Vanished):
        transport.execute([sys.executable, "-c", "import time; time.sleep(30)"], b"", timeout_s=1)
    assert transport.execute([sys.executable, "-c", "print(1)"], b"", timeout_s=20).output == b"1\n"


def test_a_device_without_python(address):
    with Device(replace(parse_address(address), python="/nowhere/python3")) as device:
        message = (
            r"/nowhere/python3 does not run there .*; install Python 3\.8 or later, or name one with \?python=PATH"
        )
        with pytest.raises(LacksSoftware, match=message):
            device.hello()


def test_a_measurement_is_one(address, model, larger_model, tmp_path):
    options = {"max_seconds": 1.0, "min_rounds": 10}
    there = measure_files_on(
        address, {"a": model, "b": larger_model}, runtime="onnxruntime", journal=tmp_path / "jobs.sqlite", **options
    )
    here = measure_files({"a": (model, "onnxruntime"), "b": (larger_model, "onnxruntime")}, **options)
    # 64 times the multiply-accumulates: no noise turns that around.
    assert there.measurement.ratio("b", "a").verdict == "slower"
    assert there.measurement.device == here.device
    assert there.measurement.versions == {name: dict(versions) for name, versions in here.versions.items()}
    assert there.measurement.threads == 1
    assert there.throttled == ()
    assert {len(times) for times in there.measurement.times_us.values()} != {0}


def test_adb_says_what_it_is_about(fake_adb):
    with Device("adb://gone/d") as device, pytest.raises(DeviceError, match=r"device 'gone' not found; see that `adb"):
        device.hello()
    with Device("adb://cut/d") as device, pytest.raises(Vanished, match=r"the connection was cut: error: closed"):
        device.hello()


def test_a_client_that_is_not_installed(monkeypatch):
    monkeypatch.setenv("PATH", str(Path("/nowhere")))
    with Device("adb://serial/d") as device, pytest.raises(InputError, match="adb://serial: adb is not installed here"):
        device.hello()
