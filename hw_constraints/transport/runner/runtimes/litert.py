"""LiteRT (formerly TensorFlow Lite) on the CPU, set up as `hw_constraints/backends/litert.py` does."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bitwright.hw_constraints.transport.runner.runtimes.in_process import InProcess, LoadedArtefact, Spec

if TYPE_CHECKING:
    from collections.abc import Mapping

_DYNAMIC = -1  # in `shape_signature`


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
        shapes = {each["name"]: tuple(each["shape"]) for each in inputs}

        def run(batch: Mapping[str, Any]) -> None:
            for name, array in batch.items():
                if array.shape != shapes[name]:  # given inputs of another batch size
                    interpreter.resize_tensor_input(places[name], array.shape, strict=True)
                    interpreter.allocate_tensors()
                    shapes[name] = array.shape
                interpreter.set_tensor(places[name], array)
            interpreter.invoke()

        return LoadedArtefact(specs, {"num_threads": str(threads), "delegate": "XNNPACK"}, run)


def _spec(details: Mapping[str, Any]) -> Spec:
    shape = tuple(None if size == _DYNAMIC else int(size) for size in details["shape_signature"])
    scales, zero_points = (details["quantization_parameters"][name] for name in ("scales", "zero_points"))
    codes = (float(scales[0]), int(zero_points[0])) if len(scales) == 1 else ()
    return Spec(details["name"], details["dtype"].__name__, shape, *codes)


RUNTIME = LiteRT()
