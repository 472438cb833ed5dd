"""OpenVINO on the CPU, set up as here (`runtime_settings`)."""

from __future__ import annotations

from typing import Any

from bitwright.hw_constraints.runtime_settings import openvino_settings
from bitwright.hw_constraints.transport.runner.runtimes.in_process import InProcess, LoadedArtefact, Spec


class OpenVINO(InProcess):
    """The package `openvino`."""

    packages = ("openvino",)
    install = "pip install openvino"

    def load(self, path: str, threads: int) -> LoadedArtefact:
        """A compiled model with one stream, its float layers in float32."""
        settings = openvino_settings(path, threads=threads)
        core = self.package().Core()
        compiled = core.compile_model(core.read_model(path), "CPU", settings)
        request = compiled.create_infer_request()
        return LoadedArtefact(tuple(_spec(port) for port in compiled.inputs), settings, request.infer)


def _spec(port: Any) -> Spec:
    shape = tuple(dim.get_length() if dim.is_static else None for dim in port.get_partial_shape())
    return Spec(port.get_any_name(), port.get_element_type().to_dtype().name, shape)


RUNTIME = OpenVINO()
