"""LiteRT (TensorFlow Lite) on the CPU."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bitwright.hw_constraints.transport.runner.runtimes.in_process import InProcess, LoadedArtefact, Spec

if TYPE_CHECKING:
    from collections.abc import Mapping


class LiteRT(InProcess):
    """The package `ai_edge_litert`, or its predecessor `tflite_runtime` that older devices have."""

    packages = ("ai_edge_litert", "tflite_runtime")
    install = "pip install ai-edge-litert"

    def version(self) -> str:
        """The distribution's version: the package does not carry it in every release."""
        from importlib.metadata import PackageNotFoundError, version

        package = self.package()
        try:
            return version(package.__name__.replace("_", "-"))
        except PackageNotFoundError:
            return str(getattr(package, "__version__", "of unknown version"))

    def load(self, path: str, threads: int) -> LoadedArtefact:
        """An interpreter with its default delegate (XNNPACK)."""
        module = importlib.import_module(f"{self.package().__name__}.interpreter")
        interpreter = module.Interpreter(model_path=path, num_threads=threads)
        interpreter.allocate_tensors()
        inputs = interpreter.get_input_details()
        specs = tuple(_spec(each) for each in inputs)
        places = {each["name"]: each["index"] for each in inputs}

        def run(batch: Mapping[str, Any]) -> None:
            for name, array in batch.items():
                interpreter.set_tensor(places[name], array)
            interpreter.invoke()

        return LoadedArtefact(specs, {"num_threads": str(threads)}, run)


def _spec(details: Mapping[str, Any]) -> Spec:
    return Spec(details["name"], details["dtype"].__name__, tuple(int(size) for size in details["shape"]))


RUNTIME = LiteRT()
