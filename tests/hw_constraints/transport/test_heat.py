"""Clocks, temperatures and throttling, read from a made-up sysfs."""

import os

import pytest

from bitwright.hw_constraints.transport.runner import heat
from bitwright.hw_constraints.transport.runner.work import cooled


class Sysfs:
    """A tree as the kernel shows it."""

    def __init__(self, root) -> None:
        self.root = root
        self.write("devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1800000")
        self.write("devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "3")
        self.write("class/thermal/thermal_zone0/type", "CPU-therm")
        self.write("class/thermal/thermal_zone0/temp", "45500")
        self.cooling("pwm-fan", 3, place=0)
        self.cooling("Processor", 0, place=1)

    def write(self, path: str, text: str) -> None:
        file = self.root / "sys" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    def cooling(self, kind: str, level: int, *, place: int = 1) -> None:
        for name, value in (("type", kind), ("cur_state", level), ("max_state", 10)):
            self.write(f"class/thermal/cooling_device{place}/{name}", str(value))


@pytest.fixture
def sysfs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))  # this machine's nvidia-smi is not part of it
    return Sysfs(tmp_path)


def test_a_reading(sysfs):
    state = heat.reading(sysfs.root)
    assert state["clocks_mhz"] == {"cpu0": 1800}
    assert state["temperatures_c"] == {"CPU-therm (thermal_zone0)": 45.5}
    assert state["throttling"] == []  # a fan slows nothing down


@pytest.mark.parametrize("kind", ["Processor", "thermal-cpufreq-0", "thermal-devfreq-0", "cpu-throttle-alert"])
def test_what_slows_down_is_seen(sysfs, kind):
    sysfs.cooling(kind, 4)
    assert heat.reading(sysfs.root)["throttling"] == [f"{kind} at 4 of 10"]


def test_throttling_between_two_readings_is_seen_afterwards(sysfs):
    before = heat.reading(sysfs.root)
    assert heat.throttled(before, heat.reading(sysfs.root)) == []
    sysfs.write("devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "5")
    assert heat.throttled(before, heat.reading(sysfs.root)) == ["cpu0 throttled 2 times"]


def test_sensors_that_do_not_answer_are_left_out(sysfs):
    sysfs.write("class/thermal/thermal_zone0/temp", "")
    sysfs.write("class/thermal/cooling_device1/cur_state", "n/a")
    state = heat.reading(sysfs.root)
    assert (state["temperatures_c"], state["throttling"]) == ({}, [])


def tool(sysfs, name: str, script: str) -> None:
    folder = sysfs.root / "bin"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_a_gpu_says_why_it_is_slow(sysfs):
    tool(sysfs, "nvidia-smi", 'echo "1410, 61, 0x0000000000000060"; echo "[N/A], 40, 0x0000000000000000"')
    state = heat.reading(sysfs.root)
    assert state["clocks_mhz"]["gpu0"] == 1410
    assert state["temperatures_c"]["gpu0"] == 61
    assert state["throttling"] == ["gpu0: GPU software thermal slowdown", "gpu0: GPU hardware thermal slowdown"]
    assert "gpu1" not in state["clocks_mhz"]
    # Idle (0x1) and a power cap (0x4) are no heat: NVML API reference, NvmlClocksEventReasons.
    tool(sysfs, "nvidia-smi", 'echo "1410, 61, 0x0000000000000005"')
    assert heat.reading(sysfs.root)["throttling"] == []


def test_a_jetson_says_its_temperatures(sysfs):
    line = "01-02-2026 10:00:00 RAM 2448/7620MB CPU [2%@1510,off] GR3D_FREQ 0% cpu@45.5C soc2@-3C gpu@43C VDD_IN 4W"
    tool(sysfs, "tegrastats", f"while :; do echo '{line}'; /bin/sleep 0.1; done")
    state = heat.reading(sysfs.root)
    assert state["tegrastats"] == line
    assert {name: state["temperatures_c"][name] for name in ("cpu", "soc2", "gpu")} == {
        "cpu": 45.5,
        "soc2": -3,
        "gpu": 43,
    }


def test_a_tool_that_fails_is_no_reason_to_stop(sysfs):
    tool(sysfs, "nvidia-smi", "echo NVIDIA-SMI has failed; exit 9")
    assert heat.reading(sysfs.root)["throttling"] == []


def test_what_throttled_is_measured_again_once_it_is_cool(sysfs, monkeypatch):
    sleeps = []
    monkeypatch.setattr(heat.time, "sleep", lambda seconds: (sleeps.append(seconds), sysfs.cooling("Processor", 0)))
    runs = []

    def measure() -> dict[str, object]:
        runs.append(len(runs))
        if len(runs) == 1:
            sysfs.cooling("Processor", 7)  # it gets hot while the first one runs
        return {"run": len(runs)}

    result = cooled(measure, 30, sysfs.root)
    assert result["measurement"]["run"] == 2
    assert result["conditions"]["throttled"] == []
    assert result["conditions"]["tries"] == 2
    assert result["conditions"]["waited_s"] > 0
    assert sleeps


def test_waiting_has_an_end_and_the_result_says_so(sysfs, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(heat.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(heat.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    sysfs.cooling("Processor", 7)
    result = cooled(lambda: {}, 10, sysfs.root)
    assert result["conditions"]["throttled"] == ["Processor at 7 of 10"]
    assert 10 <= result["conditions"]["waited_s"] <= 12
    assert result["conditions"]["before"]["throttling"] == ["Processor at 7 of 10"]


def test_the_real_machine_can_be_read():
    state = heat.reading()
    assert set(state) >= {"clocks_mhz", "temperatures_c", "counters", "throttling"}
    assert os.name == "posix"
