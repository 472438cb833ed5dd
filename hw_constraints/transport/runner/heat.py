"""Clocks, temperatures and throttling of a device, as far as it says.

Linux' sysfs (Documentation/driver-api/thermal/sysfs-api.rst, admin-guide/pm/cpufreq.rst), `nvidia-smi`, and on Jetson
modules `tegrastats`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

# Of a GPU's reasons for lower clocks, those that come from heat: software and hardware thermal slowdown, and the power
# brake (NVML API reference, NvmlClocksEventReasons).
_GPU_HEAT = {0x20: "GPU software thermal slowdown", 0x40: "GPU hardware thermal slowdown", 0x80: "GPU power brake"}
_GPU_QUERY = "--query-gpu=clocks.sm,temperature.gpu,clocks_throttle_reasons.active"
# Cooling devices that slow something down; the others are fans.
_SLOWS = re.compile(r"processor|cpufreq|devfreq|throttle|powerclamp", re.IGNORECASE)
_TOOL_SECONDS = 5.0
_LOOK_EVERY_S = 1.0


def reading(root: Path = Path("/")) -> dict[str, Any]:
    """The state of now.

    Args:
        root: of the file system; another one for tests.

    Returns:
        `clocks_mhz` and `temperatures_c` by their names, `counters` that rise with each throttling, and `throttling`:
        what slows the device down right now.
    """
    state: dict[str, Any] = {"clocks_mhz": {}, "temperatures_c": {}, "counters": {}, "throttling": []}
    cpus = root / "sys/devices/system/cpu"
    for path in sorted(cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")):
        _note(state["clocks_mhz"], path.parts[-3], path, 1e-3)
    for path in sorted(cpus.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")):
        _note(state["counters"], path.parts[-3], path, 1)
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        _note(state["temperatures_c"], f"{_text(zone / 'type')} ({zone.name})", zone / "temp", 1e-3)
    for device in sorted((root / "sys/class/thermal").glob("cooling_device*")):
        kind, level = _text(device / "type"), _number(device / "cur_state")
        if level and level > 0 and _SLOWS.search(kind):
            state["throttling"].append(f"{kind} at {level:g} of {_text(device / 'max_state')}")
    _add_gpu(state)
    _add_tegrastats(state)
    return state


def throttled(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What slowed the device down between two readings, or does now."""
    rose = [
        f"{name} throttled {count - before['counters'].get(name, count):g} times"
        for name, count in after["counters"].items()
        if count > before["counters"].get(name, count)
    ]
    return sorted({*rose, *after["throttling"]})


def wait_until_cool(limit_s: float, root: Path = Path("/")) -> float:
    """Waits while something slows the device down, at most so long; returns how long it was."""
    start = time.monotonic()
    while reading(root)["throttling"] and time.monotonic() - start < limit_s:
        time.sleep(min(_LOOK_EVERY_S, limit_s))
    return time.monotonic() - start


def parse_gpus(text: str) -> list[tuple[str, float, float, int]]:
    """Name, clock in MHz, temperature in °C and the reasons' bits of each GPU, from `nvidia-smi`'s lines."""
    found = []
    for number, line in enumerate(text.splitlines()):
        fields = [field.strip() for field in line.split(",")]
        try:
            found.append((f"gpu{number}", float(fields[0]), float(fields[1]), int(fields[2], 16)))
        except (ValueError, IndexError):  # a board that does not tell one of them says "[N/A]"
            continue
    return found


def parse_tegrastats(line: str) -> dict[str, float]:
    """Temperatures in °C by name, from a line such as `… CPU@45.5C GPU@43C …`."""
    return {name: float(value) for name, value in re.findall(r"([A-Za-z]\w*)@(-?\d+(?:\.\d+)?)C\b", line)}


def _add_gpu(state: dict[str, Any]) -> None:
    for name, clock, temperature, bits in parse_gpus(_tool("nvidia-smi", _GPU_QUERY, "--format=csv,noheader,nounits")):
        state["clocks_mhz"][name], state["temperatures_c"][name] = clock, temperature
        state["throttling"] += [f"{name}: {reason}" for bit, reason in _GPU_HEAT.items() if bits & bit]


def _add_tegrastats(state: dict[str, Any]) -> None:
    tool = shutil.which("tegrastats")
    if not tool:
        return
    # It prints a line each interval and never ends.
    process = subprocess.Popen(
        [tool, "--interval", "100"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
    finally:
        process.kill()
        process.communicate()
    state["tegrastats"] = line.strip()
    state["temperatures_c"].update(parse_tegrastats(line))


def _tool(name: str, *arguments: str) -> str:
    path = shutil.which(name)
    if not path:
        return ""
    try:
        done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False, timeout=_TOOL_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _note(into: dict[str, float], name: str, path: Path, scale: float) -> None:
    value = _number(path)
    if value is not None:
        into[name] = round(value * scale, 3)


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:  # a sensor that is off answers with an error
        return ""
