"""Measures on devices at the other end of a wire: copies artefacts and a runner there, and reads results back."""

from bitwright.hw_constraints.transport.address import DeviceAddress, parse_address
from bitwright.hw_constraints.transport.base import Answer, Transport, list_transports, open_transport
from bitwright.hw_constraints.transport.device import Device
from bitwright.hw_constraints.transport.driver import JobResult, run_jobs
from bitwright.hw_constraints.transport.failures import DeviceError
from bitwright.hw_constraints.transport.files import measure_files_on
from bitwright.hw_constraints.transport.job import Job
from bitwright.hw_constraints.transport.journal import Journal

__all__ = [
    "Answer",
    "Device",
    "DeviceAddress",
    "DeviceError",
    "Job",
    "JobResult",
    "Journal",
    "Transport",
    "list_transports",
    "measure_files_on",
    "open_transport",
    "parse_address",
    "run_jobs",
]
