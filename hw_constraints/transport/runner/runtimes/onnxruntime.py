"""ONNX Runtime on the CPU, set up as here (`runtime_settings`)."""

from __future__ import annotations

from typing import Any

from bitwright.hw_constraints.machine import this_machine
from bitwright.hw_constraints.runtime_settings import DISABLED, EXACT, onnxruntime_settings
from bitwright.hw_constraints.transport.runner.runtimes.in_process import InProcess, LoadedArtefact, Spec

_DTYPES = {"float": "float32", "double": "float64"}


class OnnxRuntime(InProcess):
    """The package `onnxruntime`."""

    packages = ("onnxruntime",)
    install = "pip install onnxruntime"

    def load(self, path: str, threads: int) -> LoadedArtefact:
        """A session with every optimisation that leaves the file's results as they are."""
        settings = onnxruntime_settings(path, threads=threads, machine=this_machine())
        try:
            session = self._session(path, threads, settings)
        except Exception:  # 1.31.1 stumbles over the option when two weights share a zero point
            if settings.pop(EXACT, None) is None:
                raise
            session = self._session(path, threads, settings)
        specs = tuple(_spec(argument) for argument in session.get_inputs())
        names = [argument.name for argument in session.get_outputs()]
        return LoadedArtefact(specs, settings, lambda batch: session.run(names, batch))

    def _session(self, path: str, threads: int, settings: dict[str, str]) -> Any:
        package = self.package()
        options = package.SessionOptions()
        options.graph_optimization_level = package.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        for key, value in settings.items():
            if key.startswith("session."):
                options.add_session_config_entry(key, value)
        left_out = [each for each in settings.get(DISABLED, "").split(",") if each]
        return package.InferenceSession(path, options, providers=["CPUExecutionProvider"], disabled_optimizers=left_out)


def _spec(argument: Any) -> Spec:
    kind = argument.type.replace("tensor(", "").replace(")", "")
    shape = tuple(dim if isinstance(dim, int) else None for dim in argument.shape)
    return Spec(argument.name, _DTYPES.get(kind, kind), shape)


RUNTIME = OnnxRuntime()
