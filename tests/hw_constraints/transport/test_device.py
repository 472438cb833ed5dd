"""Files on a device, and devices that are not what they should be."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from bitwright.hw_constraints.transport import Answer, Device, measure_files_on
from bitwright.hw_constraints.transport.content import Content, file_content
from bitwright.hw_constraints.transport.driver import Retries
from bitwright.hw_constraints.transport.failures import (
    DeviceFull,
    LacksSoftware,
    Rubbish,
    Unusable,
    Vanished,
    WrongHash,
)
from bitwright.quant.errors import InputError

QUICK = {"max_seconds": 0.3, "min_rounds": 5, "target_half_width": 0.5}
SOON = Retries(first_s=0.01, longest_s=0.02, tries=3)


class Scripted:
    """A transport that answers what it is told, in order; the last answer stays."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.commands: list[list[str]] = []

    def execute(self, command, payload, *, timeout_s):
        self.commands.append(list(command))
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def close(self) -> None:
        pass


def answering(code: int = 0, output: bytes = b"", errors: str = "") -> Device:
    return Device("ssh://ann@orin/d", Scripted(Answer(code=code, output=output, errors=errors)))


def test_a_file_is_copied_once_and_under_its_hash(device, model, tmp_path):
    content, sent = file_content(model), []
    device.put([content], sent.append)
    assert (tmp_path / "device" / "store" / content.name).read_bytes() == model.read_bytes()
    assert sum(sent) > model.stat().st_size
    with Device(device.address) as later:
        later.put([content], sent.clear)
    assert sent


def test_a_tampered_artefact_is_copied_again(device, model, tmp_path):
    options = {"runtime": "onnxruntime", "journal": tmp_path / "j", "retries": SOON, **QUICK}
    measure_files_on(device, {"a": model}, **options)
    there = tmp_path / "device" / "store" / file_content(model).name
    there.write_bytes(there.read_bytes()[:-1] + b"!")
    said: list[str] = []
    measure_files_on(device, {"a": model}, say=said.append, **options)
    assert there.read_bytes() == model.read_bytes()
    (refused, mended) = said
    assert f"local: a: its SHA-256 is there {hash_of(there.read_bytes()[:-1] + b'!')}, not" in refused
    assert mended == f"local: {model} was not what its hash says; it was copied again"


def hash_of(data: bytes) -> str:
    return Content(label="", source=data, suffix="").sha256


def test_a_file_that_changes_while_it_is_copied(device, tmp_path):
    path = tmp_path / "changing.bin"
    path.write_bytes(b"before")
    content = file_content(path)
    assert content.sha256
    path.write_bytes(b"behind")
    message = rf"its SHA-256 is there {hash_of(b'behind')}, not {content.sha256}: .* changed while it was copied"
    with pytest.raises(WrongHash, match=message):
        device.put([content])
    assert list((tmp_path / "device" / "store").glob(f"{content.sha256}*")) == []


def test_a_partial_copy_longer_than_the_file_is_begun_anew(device, model, tmp_path):
    device.put([])
    content = file_content(model)
    (tmp_path / "device" / "store" / f"{content.name}.part").write_bytes(b"x" * (content.size + 7))
    with pytest.raises(WrongHash):
        device.put([content])
    device.put([content])
    assert (tmp_path / "device" / "store" / content.name).read_bytes() == model.read_bytes()


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "device"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_device_says_how_much_is_missing(device, small_disk):
    device.put([])
    large = Content(label="large", source=b"\1" * (2 << 20), suffix=".bin")
    message = r"local: the device is full: \d+ bytes are free, 2097152 are needed; make room, or name another folder"
    with pytest.raises(DeviceFull, match=message):
        device.put([large])
    assert list((small_disk / "store").glob("*.part")) == []  # what it could not hold does not keep it full


def test_a_job_is_not_begun_where_its_result_has_no_room(device, small_disk, model, tmp_path, executions):
    message = r"the device is full: \d+ bytes are free, 1048576 are needed"
    with pytest.raises(DeviceFull, match=message):
        measure_files_on(device, {"a": model}, runtime="onnxruntime", journal=tmp_path / "j", retries=SOON, **QUICK)
    assert executions("start") == []


def test_a_folder_that_may_not_be_written(tmp_path):
    (tmp_path / "device").write_text("a file")
    message = r"local: .*device/x: Not a directory; name a folder that the account may write in the address"
    address = f"local:{tmp_path / 'device'}/x?python={sys.executable}"
    with Device(address) as device, pytest.raises(Unusable, match=message):
        device.put([])


@pytest.mark.parametrize("code", [126, 127])
def test_no_python(code):
    with pytest.raises(
        LacksSoftware, match=r"^ssh://ann@orin: python3 does not run there \(sh: python3: not found\); install Python 3"
    ):
        answering(code, errors="sh: python3: not found\n").hello()


def test_an_old_python():
    output = b'bitwright-device {"state": "refused", "kind": "old-python", "message": "3.6.9"}\n'
    with pytest.raises(
        LacksSoftware, match=r"its Python is 3\.6\.9; 3\.8 or later is needed: install one, name it with"
    ):
        answering(output=output).hello()


@pytest.mark.parametrize(
    "output",
    [b"", b"Welcome!\n", b"bitwright-device {broken\n", b"bitwright-device 7\n", b"bitwright-device {}\n", b"\xff\xfe"],
)
def test_rubbish_is_shown(output):
    message = (
        r"^ssh://ann@orin: answers '.*' and ends with 0, which is no answer of the runner \(on standard error: 'tis\)"
    )
    with pytest.raises(Rubbish, match=message):
        answering(output=output, errors="motd\n'tis\n").hello()


def test_what_a_login_shell_prints_is_skipped():
    output = b'Welcome!\nbitwright-device {"state": "looked", "whole": [], "partial": {}, "removed": []}\nBye\n'
    device = answering(output=output)
    assert device._read(device._transport.execute([], b"", timeout_s=1))["state"] == "looked"


@pytest.mark.parametrize(("code", "name"), [(-9, "SIGKILL"), (137, "SIGKILL"), (143, "SIGTERM")])
def test_a_killed_process_may_be_asked_again(code, name):
    with pytest.raises(Vanished, match=rf"ssh://ann@orin: the process there was ended by {name}"):
        answering(code).hello()


def test_a_device_that_keeps_vanishing_is_given_up(tmp_path, model):
    device = answering(-9)
    message = r"ended by SIGKILL \(tried 3 times\)$"
    with pytest.raises(Vanished, match=message):
        measure_files_on(device, {"a": model}, runtime="onnxruntime", journal=tmp_path / "j", retries=SOON, **QUICK)
    assert len(device._transport.commands) == 3


def test_rubbish_is_not_asked_for_twice(tmp_path, model):
    device = answering(0, b"hello")
    with pytest.raises(Rubbish):
        measure_files_on(device, {"a": model}, runtime="onnxruntime", journal=tmp_path / "j", retries=SOON, **QUICK)
    assert len(device._transport.commands) == 1


def test_files_that_are_not_there(device, tmp_path):
    with pytest.raises(InputError, match=r"none\.onnx: no such file"):
        measure_files_on(device, {"a": tmp_path / "none.onnx"}, runtime="onnxruntime", journal=tmp_path / "j")


def test_hello_says_what_is_there(device):
    found = device.hello()
    assert found["python"].startswith("3.")
    assert found["runtimes"]["onnxruntime"] == {"version": importlib.metadata.version("onnxruntime")}
    assert "trtexec is not in PATH; install it there: it comes with T" in found["runtimes"]["tensorrt"]["missing"]
    assert found["free_bytes"] > 0
    assert found["busy"] == ""


def test_no_module_of_the_shells_folder_is_taken(tmp_path, monkeypatch, local_address):
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    monkeypatch.chdir(tmp_path)
    with Device(local_address) as device:
        assert device.hello()["state"] == "here"


def test_a_result_of_another_job_is_refused(tmp_path, model):
    looked = b'bitwright-device {"state": "looked", "whole": [%s], "partial": {}, "removed": []}\n'
    device = answering()
    names = ", ".join(f'"{each.name}"' for each in (device._runner, file_content(model))).encode()
    wrong = b'bitwright-device {"state": "measured", "job": "0123"}\n'
    answers = [Answer(code=0, output=each, errors="") for each in (looked % names, wrong)]
    device = Device("ssh://ann@orin/d", Scripted(*answers))
    with pytest.raises(Unusable, match=r"ssh://ann@orin: answers with job 0123, asked for [0-9a-f]{32}"):
        measure_files_on(device, {"a": model}, runtime="onnxruntime", journal=tmp_path / "j", retries=SOON)


def test_a_local_path_is_absolute_or_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with Device(f"local:/~/there?python={sys.executable}") as device:
        device.put([])
    assert list((tmp_path / "there" / "store").glob("*.pyz"))
    assert Path(tmp_path / "there").is_dir()
