"""ONNX Runtime in a process with another Python; see `parity_worker.py`. Needs Python 3.8 or newer."""

from typing import Any, Dict, List, Mapping, Tuple  # noqa: UP035 - of Python 3.8, too

import onnxruntime

VERSION = onnxruntime.__version__


def open_model(settings: Mapping[str, Any], arrays: Mapping[str, Any]) -> Tuple[Any, Dict[str, Any]]:  # noqa: UP006
    """A session as `OnnxRuntimeLink` has it, of the bytes `model`; none where only its graph was to be written."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, settings["level"])
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    for key, value in settings["entries"].items():
        options.add_session_config_entry(key, value)
    if settings["optimized"]:
        options.optimized_model_filepath = settings["optimized"]
    session = onnxruntime.InferenceSession(
        arrays["model"].tobytes(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=settings["without"],
    )
    return None if settings["optimized"] else session, {}


def run_model(session: Any, question: List[str], arrays: Mapping[str, Any]) -> Dict[str, Any]:  # noqa: UP006
    """The results of these names by their place."""
    return {str(place): each for place, each in enumerate(session.run(question, dict(arrays)))}
