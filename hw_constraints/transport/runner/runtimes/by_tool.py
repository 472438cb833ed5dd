"""Runtimes that are measured by a vendor's tool: one run of the tool for each sample, artefacts in turns."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any

from bitwright.hw_constraints.machine import load_average
from bitwright.hw_constraints.measure.conditions import pinned
from bitwright.hw_constraints.measure.location import widest_half_width
from bitwright.hw_constraints.transport.runner.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SAMPLE_SECONDS = 1  # that the tool measures for one sample; loading comes on top
_LAST_LINES = 3  # of what a tool that failed printed, unless it marks its errors


class ByTool(ABC):
    """A tool.

    Attributes:
        tool: its name.
        places: folders where it may be besides those in PATH.
        install: what to say when it is not there.
    """

    tool: str
    places: tuple[str, ...] = ()
    install: str

    def version(self) -> str:
        """Where the tool is: none of them says its version in a way that lasts.

        Raises:
            Refusal: it is not there.
        """
        return self.path()

    def path(self) -> str:
        """The tool's file.

        Raises:
            Refusal: it is not there.
        """
        beside_python = os.path.dirname(sys.executable)  # a virtual environment's tools are not in PATH
        places = [os.environ.get("PATH", os.defpath), beside_python, *self.places]
        found = shutil.which(self.tool, path=os.pathsep.join(places))
        if not found:
            raise Refusal("lacks-runtime", f"{self.tool} is not in PATH; install it there: {self.install}")
        return found

    @abstractmethod
    def prepare(self, path: str, folder: str, threads: int, run: Callable[[Sequence[str]], str]) -> Callable[[], float]:
        """What is done once for an artefact; gives what takes a sample: the tool's median in microseconds.

        Args:
            path: the artefact.
            folder: for the tool's files.
            threads: to use.
            run: runs a command and gives what it printed.
        """

    def measure(
        self,
        artefacts: Mapping[str, str],
        inputs: Mapping[str, str],
        options: Mapping[str, Any],
        inherited: int,
    ) -> dict[str, Any]:
        """Times artefacts against each other; see `InProcess.measure`.

        Args:
            artefacts: path of each; the first is the reference.
            inputs: has to be empty: the tools make their own up.
            options: of `timed_rounds`.
            inherited: the descriptor of the device's lock, which the tool holds, too: if this process is killed, the
                lock lasts as long as the tool runs.

        Raises:
            Refusal: the tool is not here, or rejects an artefact; its own message is in it.
        """
        if inputs:
            raise Refusal("unusable", f"{self.tool} makes its inputs up and takes none", final=True)
        version, samples = self.version(), {}
        with tempfile.TemporaryDirectory() as folder, pinned(options["threads"]):
            for number, (name, path) in enumerate(artefacts.items()):
                own = os.path.join(folder, str(number))
                os.mkdir(own)
                samples[name] = self.prepare(path, own, options["threads"], partial(_run, name, inherited))
            record = sampled_rounds(samples, **options)
        record["versions"] = {name: {self.tool: version} for name in artefacts}
        return record


def sampled_rounds(
    samples: Mapping[str, Callable[[], float]],
    *,
    min_rounds: int,
    max_seconds: float,
    target_half_width: float,
    threads: int,
    seed: int,
) -> dict[str, Any]:
    """Rounds of samples that somebody else's clock took; what `timed_rounds` gives, and the same rule to stop."""
    order, times, converged = random.Random(seed), {name: [] for name in samples}, False  # type: ignore[var-annotated]
    load_before, stop_at, rounds = load_average(), time.monotonic() + max_seconds, 0
    while not converged and (rounds == 0 or time.monotonic() < stop_at):
        names = list(samples)
        order.shuffle(names)
        for name in names:
            times[name].append(samples[name]())
        rounds += 1
        converged = rounds >= min_rounds and widest_half_width(times) <= target_half_width
    return {
        "times_us": times,
        "rounds": rounds,
        "disturbed_samples": 0,
        "disturbed_rounds": 0,
        "dropped_disturbed": False,
        "basis": "wall time",
        "converged": converged,
        "load_before": load_before,
        "load_after": load_average(),
        "threads": threads,
    }


def _run(artefact: str, inherited: int, command: Sequence[str]) -> str:
    done = subprocess.run(
        list(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, pass_fds=(inherited,)
    )
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        lines = [line.strip() for line in text.splitlines() if line.strip()] or ["it printed nothing"]
        said = [line for line in lines if "[E]" in line] or lines
        tool = os.path.basename(command[0])
        message = f"{artefact}: {tool} ended with {done.returncode}: {' '.join(said[-_LAST_LINES:])}"
        raise Refusal("rejected", message, final=True)
    return text


def found_in(pattern: str, text: str, tool: str) -> re.Match[str]:
    """The last match in what a tool printed.

    Raises:
        Refusal: there is none: another version prints something else.
    """
    matches = list(re.finditer(pattern, text))
    if not matches:
        last = (text.strip().splitlines() or ["nothing"])[-1]
        raise Refusal("unusable", f"{tool} printed no latency; its last line: {last}")
    return matches[-1]
