"""Brings jobs to an end: copies, asks, asks again after a cut, and writes down what happened.

The only question is "the result of this job, please": the device starts it if need be. So whatever was cut, where ever,
is mended by asking again, and nothing is measured twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitwright.hw_constraints.backends.blame import lines_named_in
from bitwright.hw_constraints.measure.interleaving import Measurement, measurement_from_json
from bitwright.hw_constraints.transport.device import Device
from bitwright.hw_constraints.transport.failures import DeviceError, HostRefuses, Rejected, Rubbish, Unusable, Vanished
from bitwright.hw_constraints.transport.job import Job
from bitwright.hw_constraints.transport.journal import Journal

_LOADING_S = 600.0  # on top of what a job may wait and measure: runtimes compile


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How often to try again, and how.

    Attributes:
        tries: failures in a row after which a job is given up.
        first_s: the first pause; each is twice the one before.
        longest_s: the longest.
        starts: how often a job is started on the device until it counts as one that ends without a result.
        wait_s: how long the device waits for a result before it says that the job still runs.
    """

    tries: int = 6
    first_s: float = 0.5
    longest_s: float = 15.0
    starts: int = 3
    wait_s: float = 20.0

    def pause_s(self, failures: int) -> float:
        """Before the next try."""
        return min(self.longest_s, self.first_s * 2.0 ** (failures - 1))


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """What a device measured.

    Attributes:
        job: the job's name.
        device: the device's address.
        measurement: as it would have been taken here.
        conditions: `before` and `after`: clocks, temperatures; `throttled`: what slowed the device down; `waited_s`.
        settings: of each session, in the runtime's words.
    """

    job: str
    device: str
    measurement: Measurement
    conditions: Mapping[str, Any]
    settings: Mapping[str, Mapping[str, str]]

    @property
    def throttled(self) -> tuple[str, ...]:
        """What slowed the device down while it measured; empty when nothing did."""
        return tuple(self.conditions["throttled"])


def run_jobs(
    device: Device,
    jobs: Sequence[Job],
    journal: Journal,
    *,
    retries: Retries | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> list[JobResult]:
    """The results of jobs, in their order; what the journal has already is not asked for.

    Args:
        device: where to.
        jobs: what.
        journal: where it is written down.
        retries: how stubbornly.
        say: hears what is waited for and what was mended.

    Raises:
        DeviceError: one of them cannot be brought to an end; results that have arrived are in the journal.
    """
    policy = retries or Retries()
    results = []
    for job in jobs:
        known = journal.result(job.id)
        if known is None:
            journal.asked(job.id, device.label)
        record = known or _brought_to_an_end(device, job, journal, policy, say)
        results.append(_read(job, device.label, record))
        if known is None:
            journal.measured(job.id, record)
    return results


def _brought_to_an_end(
    device: Device, job: Job, journal: Journal, policy: Retries, say: Callable[[str], None]
) -> dict[str, Any]:
    failures = 0
    give_up_at = time.monotonic() + job.lock_wait_s + job.cool_s + 2 * job.max_seconds + _LOADING_S
    while True:
        try:
            answer = _put_and_ask(device, job, policy, say)
        except DeviceError as error:
            failures += 1
            # Who was there and is no longer may come back; who never was is said at once.
            curable = error.cured_by_trying or (device.was_reached and isinstance(error, HostRefuses))
            given_up = not curable or failures >= policy.tries
            journal.failed(job.id, str(error), given_up=given_up)
            if given_up:
                raise _in_the_end(error, job, failures) from error
            say(f"{error}; again in {policy.pause_s(failures):g} s")
            time.sleep(policy.pause_s(failures))
            continue
        failures = 0
        if answer["state"] != "running":
            return answer
        if time.monotonic() > give_up_at:
            raise Vanished(f"{device.label}: job {job.id} still runs; ask again later, its result is kept there")
        if answer.get("waits_for"):
            say(f"{device.label}: waits for {answer['waits_for']}")


def _put_and_ask(device: Device, job: Job, policy: Retries, say: Callable[[str], None]) -> dict[str, Any]:
    known = len(device.replaced)
    device.put(job.contents)
    for label in device.replaced[known:]:
        say(f"{device.label}: {label} was not what its hash says; it was copied again")
    return device.ask(job, wait_s=policy.wait_s, starts=policy.starts)


def _in_the_end(error: DeviceError, job: Job, failures: int) -> DeviceError:
    """The error with what else there is to say about it."""
    said = [f"{error} (tried {failures} times)" if failures > 1 else str(error)]
    if isinstance(error, Rejected):
        files = [each.source for each in job.artefacts.values() if isinstance(each.source, Path)]
        said += lines_named_in(str(error), files)
    return type(error)("; ".join(said))


def _read(job: Job, device: str, record: Mapping[str, Any]) -> JobResult:
    """The result in a record.

    Raises:
        Rubbish: it lacks something, or is another job's.
    """
    try:
        if record["job"] != job.id:
            raise Unusable(f"{device}: answers with job {record['job']}, asked for {job.id}")
        measurement = measurement_from_json(record["measurement"])
        if list(measurement.times_us) != list(job.artefacts):
            raise Unusable(f"{device}: answers for {list(measurement.times_us)}, asked for {list(job.artefacts)}")
        conditions, settings = record["conditions"], record["settings"]
        return JobResult(job=job.id, device=device, measurement=measurement, conditions=conditions, settings=settings)
    except (KeyError, TypeError) as error:
        raise Rubbish(
            f"{device}: job {job.id}: the result lacks something: {error}; is the runner another's?"
        ) from error
