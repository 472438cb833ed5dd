"""OpenSSH's own client against a real sshd: who is let in, and what breaks on the way."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from bitwright.experiments.benchmarks.loopback_ssh import kill_shared_connections
from bitwright.hw_constraints.transport import Device, measure_files_on, open_transport
from bitwright.hw_constraints.transport import device as device_module
from bitwright.hw_constraints.transport.content import Content
from bitwright.hw_constraints.transport.driver import Retries
from bitwright.hw_constraints.transport.failures import HostRefuses, UnknownHostKey, Vanished

QUICK = {"max_seconds": 0.3, "min_rounds": 5, "target_half_width": 0.5}
SLOW = {"max_seconds": 2.5, "target_half_width": 1e-9}
SOON = Retries(first_s=0.05, longest_s=0.2)


@pytest.fixture
def known_hosts(ssh_server):
    before = ssh_server.known_hosts.read_text()
    yield ssh_server.known_hosts
    ssh_server.known_hosts.write_text(before)


def test_an_unknown_host_key_is_refused_and_stays_unknown(ssh_address, known_hosts):
    known_hosts.write_text("")
    message = (
        r"^ssh://\w+@127\.0\.0\.1:\d+: the host's key is not known; compare it with the host's owner and connect once "
        "by hand with ssh$"
    )
    with Device(ssh_address) as device, pytest.raises(UnknownHostKey, match=message):
        device.hello()
    assert known_hosts.read_text() == ""


def test_a_changed_host_key_is_refused(ssh_address, ssh_server, known_hosts):
    other = ssh_server.host_key.with_name("identity.pub").read_text().split()[:2]
    known_hosts.write_text(f"[127.0.0.1]:{ssh_server.port} {' '.join(other)}\n")
    message = r"the host's key is not the one that is known: somebody may be in between; .*ssh-keygen -R"
    with Device(ssh_address) as device, pytest.raises(UnknownHostKey, match=message):
        device.hello()


def test_a_host_that_refuses(ssh_address, ssh_server):
    ssh_server.stop()
    try:
        with (
            Device(ssh_address) as device,
            pytest.raises(HostRefuses, match="Connection refused; see that `ssh` to it"),
        ):
            device.hello()
    finally:
        ssh_server.start()


def test_a_host_that_goes_away_for_a_while_is_waited_for(ssh_address, ssh_server, model, tmp_path, executions):
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if len(said) == 2:
            ssh_server.start()

    with Device(ssh_address) as device:
        device.hello()
        ssh_server.stop()
        options = {**QUICK, "journal": tmp_path / "j", "retries": SOON, "say": say}
        measure_files_on(device, {"a": model}, runtime="onnxruntime", **options)
    assert any("Connection refused" in each for each in said)
    assert len(executions("done")) == 1


def test_an_account_that_is_not_let_in(ssh_address, ssh_server, tmp_path):
    lines = ssh_server.config.read_text().splitlines()
    config = tmp_path / "other_config"
    config.write_text("\n".join(each for each in lines if "IdentityFile" not in each) + "\n  IdentityFile /nowhere\n")
    address = ssh_address.replace(quote(str(ssh_server.config)), quote(str(config)))
    message = r"Permission denied \(publickey\).*; see that `ssh` to it works"
    with Device(address) as device, pytest.raises(HostRefuses, match=message):
        device.hello()


def test_a_copy_that_is_cut_goes_on_where_it_was(ssh_address, ssh_server, tmp_path, monkeypatch):
    monkeypatch.setattr(device_module, "_PIECE_BYTES", 1 << 30)  # one command, so that the cut is within it
    blob = Content(label="big", source=os.urandom(64 << 20), suffix=".bin")
    part = tmp_path / "device" / "store" / f"{blob.name}.part"

    def cut() -> None:
        wait_for(lambda: part.exists() and part.stat().st_size > 1 << 20)
        ssh_server.cut()

    with Device(ssh_address) as device:
        device.hello()
        cutter = threading.Thread(target=cut)
        cutter.start()
        with pytest.raises(Vanished, match="the connection was cut"):
            device.put([blob])
        cutter.join()
        arrived: list[int] = []
        kept = settled_size(part)
        device.put([blob], arrived.append)
    assert 1 << 20 < kept < blob.size
    assert sum(arrived) == blob.size - kept
    assert part.with_suffix("").read_bytes() == blob.source


def settled_size(path: Path) -> int:
    """A file's size once the process that writes it has seen the end of its input."""
    size = -1
    while path.stat().st_size != size:
        size = path.stat().st_size
        time.sleep(0.3)
    return size


def test_a_copy_that_is_cut_within_a_piece_goes_on_at_the_byte(ssh_address, ssh_server, tmp_path):
    blob = Content(label="big", source=os.urandom(2 << 20), suffix=".bin")
    part = tmp_path / "device" / "store" / f"{blob.name}.part"
    with Device(ssh_address) as device:
        device.hello()
        part.write_bytes(blob.source[:1_234_567])
        arrived: list[int] = []
        device.put([blob], arrived.append)
    assert sum(arrived) == len(blob.source) - 1_234_567
    assert part.with_suffix("").read_bytes() == blob.source


def test_the_shared_connection_is_killed(ssh_address, ssh_server, model, tmp_path, executions):
    with Device(ssh_address, way := open_transport(ssh_address)) as device:
        device.hello()
        assert kill_shared_connections([way.sockets]) == 1
        measure_files_on(
            device, {"a": model}, runtime="onnxruntime", journal=tmp_path / "j.sqlite", retries=SOON, **QUICK
        )
    assert len(executions("start")) == len(executions("done")) == 1


class Cutting(threading.Thread):
    """Cuts every connection some times once a job has been started."""

    def __init__(self, server, executions) -> None:
        super().__init__()
        self._server, self._executions = server, executions
        self.cuts = 0

    def run(self) -> None:
        wait_for(lambda: self._executions("start"))
        for _ in range(3):
            time.sleep(0.4)
            self.cuts += self._server.cut()


def test_a_cut_while_it_runs_costs_nothing(ssh_address, ssh_server, model, tmp_path, executions):
    said: list[str] = []
    cutting = Cutting(ssh_server, executions)
    cutting.start()
    options = {**SLOW, "journal": tmp_path / "j", "retries": SOON, "say": said.append}
    result = measure_files_on(ssh_address, {"a": model}, runtime="onnxruntime", **options)
    cutting.join()
    assert cutting.cuts
    assert any("the connection was cut" in each for each in said)
    assert executions("start") == executions("done") == [result.job]


def test_a_killed_driver_finds_its_result(ssh_address, ssh_server, model, tmp_path, executions):
    driver = f"""
from bitwright.hw_constraints.transport import measure_files_on
from pathlib import Path
measure_files_on({ssh_address!r}, {{"a": Path({str(model)!r})}}, runtime="onnxruntime",
                 journal=Path({str(tmp_path / "j")!r}), **{SLOW!r})
"""
    process = subprocess.Popen([sys.executable, "-c", driver])
    wait_for(lambda: executions("start"))
    process.kill()
    process.wait()
    result = measure_files_on(
        ssh_address, {"a": model}, runtime="onnxruntime", journal=tmp_path / "j", retries=SOON, **SLOW
    )
    assert executions("start") == executions("done") == [result.job]
    # And the next time it measures anew.
    again = measure_files_on(ssh_address, {"a": model}, runtime="onnxruntime", journal=tmp_path / "j", **SLOW)
    assert executions("done") == [result.job, again.job]
    assert again.job != result.job


def wait_for(condition) -> None:
    stop_at = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < stop_at
        time.sleep(0.02)
