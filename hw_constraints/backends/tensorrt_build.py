"""Builds a TensorRT engine from an ONNX file. Not yet run on a device, see `tensorrt`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bitwright.quant.errors import InputError

_DYNAMIC = -1


def build_plan(tensorrt: Any, logger: Any, artifact: Path | bytes, label: str, cache: Path) -> Any:
    """A serialized engine.

    Args:
        tensorrt: the package.
        logger: from `new_logger`.
        artifact: an ONNX file or its content.
        label: what messages call it.
        cache: the timing cache, read before and written behind the build.

    Raises:
        InputError: TensorRT does not accept the file; its message is in it, with the node's name.
    """
    builder = tensorrt.Builder(logger)
    # Strong typing is what TensorRT 11 always does; there the flag is accepted and ignored.
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, logger)
    parsed = parser.parse(artifact) if isinstance(artifact, bytes) else parser.parse_from_file(str(artifact))
    if not parsed:
        raise InputError(f"{label}: tensorrt cannot load it: {parser_messages(parser) or logger.last_error}")
    config = builder.create_builder_config()
    configure(tensorrt, builder, network, config, cache.read_bytes() if cache.is_file() else b"")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise InputError(f"{label}: tensorrt cannot build it: {logger.last_error}")
    _write(cache, bytes(config.get_timing_cache().serialize()))
    return plan


def configure(tensorrt: Any, builder: Any, network: Any, config: Any, timing: bytes) -> None:
    """Sets what the engine is built with.

    Raises:
        InputError: an input has an open dimension other than the first.
    """
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    # A cache of another device or version does not match and is not used: an empty one takes its place.
    if not config.set_timing_cache(config.create_timing_cache(timing), ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    open_inputs = {tensor.name: tuple(tensor.shape) for tensor in inputs if _DYNAMIC in tuple(tensor.shape)}
    if open_inputs:
        profile = builder.create_optimization_profile()
        for name, shape in open_inputs.items():
            static = batch_of_one(name, shape)
            profile.set_shape(name, static, static, static)
        config.add_optimization_profile(profile)


def batch_of_one(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape with its open first dimension at 1.

    Raises:
        InputError: another dimension is open.
    """
    if _DYNAMIC in shape[1:]:
        raise InputError(f"input {name!r} has the open shape {tuple(shape)}; give a file whose shapes are fixed")
    return (1, *shape[1:])


def parser_messages(parser: Any) -> str:
    """What the ONNX parser says, with the node that it says it of."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return "; ".join(f"{error.desc()} (node {error.node_name()!r}, {error.node_operator()})" for error in errors)


def new_logger(tensorrt: Any) -> Any:
    """A logger that keeps the last error and prints nothing; a class of a package that need not be installed."""

    class Logger(tensorrt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.last_error = ""

        def log(self, severity: Any, msg: str) -> None:
            if severity in (tensorrt.ILogger.Severity.INTERNAL_ERROR, tensorrt.ILogger.Severity.ERROR):
                self.last_error = " ".join(msg.split())

    return Logger()


def _write(path: Path, content: bytes) -> None:
    """Replaces a file in one step: another process may be reading it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    os.replace(file.name, path)
