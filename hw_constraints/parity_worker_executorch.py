"""ExecuTorch in a process with another Python; see `parity_worker.py`.

What a program runs is read from its file: a list of calls of kernels and delegates, each with the values that it reads
and writes. What they compute is read from the event trace (ETDump) and its debug buffer, which keeps what every call
wrote; of a delegate that is what leaves it. A program that jumps (control flow) runs a call more than once, and then
the trace does not tell which is which: it is known by its results alone.

Neither a program's calls nor a method's trace is in ExecuTorch's public interface: written for releases from 1.0 on,
read in `exir/_serialize/_program.py` and `devtools/inspector`.
"""

import contextlib
import importlib
import importlib.metadata
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from executorch.devtools import Inspector
from executorch.exir._serialize._program import deserialize_pte_binary
from executorch.extension.pybindings import portable_lib

with contextlib.suppress(Exception):  # what registers the kernels of codes is not in every build
    importlib.import_module("executorch.kernels.quantized")

VERSION = importlib.metadata.version("executorch")
_CALLS = ("OPERATOR_CALL", "DELEGATE_CALL")
# The debug buffer has a fixed size, and a run that fills it aborts. Results are stored for the kernel and once more for
# the call around it, each aligned.
_COPIES, _ALIGNED = 3, 256


@dataclass
class Session:
    """A program's method: a run loads it anew, since what it remembers cannot be set back."""

    path: str
    method: str
    writes: dict[int, int]  # how many tensors each call writes
    room: int  # bytes of the debug buffer

    def load(self, room: int = 0) -> tuple[Any, Any]:
        """The program, and its method on it."""
        program = portable_lib._load_program(self.path, enable_etdump=bool(room), debug_buffer_size=room)
        return program, program.load_method(self.method)


def open_model(settings: dict[str, Any], arrays: dict[str, Any]) -> tuple[Session, dict[str, Any]]:
    """The file at `path`, and its calls."""
    content = Path(settings["path"]).read_bytes()
    session = Session(settings["path"], "", {}, 0)
    program = portable_lib._load_program(session.path)
    methods = [program.get_method_name(place) for place in range(program.num_methods())]
    if "forward" not in methods and len(methods) > 1:
        raise ValueError(f"the program has the methods {', '.join(sorted(methods))}; one of them has to be 'forward'")
    session.method = "forward" if "forward" in methods else methods[0]
    program.load_method(session.method)  # says which kernels are missing
    read = deserialize_pte_binary(content)
    plans = getattr(read, "program", read).execution_plan  # releases before 1.1 return the program itself
    plan = next(each for each in plans if each.name == session.method)
    calls = list(_calls(plan)) if _is_straight(plan) else []
    session.writes = {each["place"]: len(each["writes"]) for each in calls}
    elements = sum(int(np.prod(shape, dtype=np.int64)) for each in calls for shape in (*each["shapes"], *each["read"]))
    session.room = _COPIES * (8 * elements + _ALIGNED * sum(map(len, (each["writes"] for each in calls)))) + 2**20
    inputs = [plan.values[place].val for place in plan.inputs]
    return session, {
        "inputs": [{"value": place, "shape": list(getattr(value, "sizes", [])), "dtype": _dtype(value)}
                   for place, value in zip(plan.inputs, inputs, strict=True)],
        "calls": calls,
    }  # fmt: skip


def run_model(session: Session, question: dict[str, Any], arrays: dict[str, Any]) -> dict[str, Any]:
    """The results by their place; where `calls` asks for them, what calls wrote as `CALL:OUTPUT`."""
    program, method = session.load(session.room if question["calls"] else 0)
    results = method([torch.from_numpy(arrays[str(place)]) for place in range(len(arrays))])
    found = {str(place): _array(each) for place, each in enumerate(results)}
    if question["calls"]:
        for place, tensors in _traced(program):
            for output, tensor in enumerate(tensors[-session.writes.get(place, 0) :]):
                if isinstance(tensor, torch.Tensor) and place in question["calls"]:
                    found[f"{place}:{output}"] = _array(tensor)
    return found


def _traced(program: Any) -> list[tuple[int, Any]]:
    """What each call wrote, by its place in the program; a delegate's inputs come first."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace, buffer = str(Path(folder) / "trace.etdp"), str(Path(folder) / "values.bin")
        program.write_etdump_result_to_file(trace, buffer)
        blocks = Inspector(etdump_path=trace, debug_buffer_path=buffer).event_blocks
        events = [each for block in blocks if block.name.startswith("Execute") for each in block.events]
        return [(each._instruction_id, list(each.debug_data)) for each in events if each.name in _CALLS]


def _is_straight(plan: Any) -> bool:
    calls = [type(each.instr_args).__name__ for chain in plan.chains for each in chain.instructions]
    return len(plan.chains) == 1 and "JumpFalseCall" not in calls


def _calls(plan: Any) -> Any:
    """Each call: its operator, the values it reads and writes, their shapes and types."""
    made = set(plan.inputs)
    for place, instruction in enumerate(plan.chains[0].instructions):
        call = instruction.instr_args
        kind = type(call).__name__
        if kind not in ("KernelCall", "DelegateCall"):
            continue
        tensors = _tensors(plan, call.args)
        if kind == "KernelCall":
            operator = plan.operators[call.op_index].name.rpartition("::")[2]
            writes = _tensors(plan, call.args[-1:])  # a kernel's last argument is what it returns
        else:
            operator = plan.delegates[call.delegate_index].id
            writes = [each for each in dict.fromkeys(tensors) if each not in made and _is_planned(plan, each)]
        reads = [each for each in dict.fromkeys(tensors) if each in made and each not in writes]
        yield {
            "place": place,
            "op": operator,
            "is_delegate": kind == "DelegateCall",
            "reads": reads,
            "writes": writes,
            "shapes": [list(plan.values[each].val.sizes) for each in writes],
            "read": [list(plan.values[each].val.sizes) for each in reads] if kind == "DelegateCall" else [],
            "dtypes": [_dtype(plan.values[each].val) for each in writes],
            "codes": _codes(plan, call.args) if operator.startswith("quantize_per_tensor") else None,
        }
        made.update(writes)


def _tensors(plan: Any, arguments: Any) -> list[int]:
    """The tensors among a call's arguments, lists opened."""
    found = []
    for each in arguments:
        value = plan.values[each].val
        if type(value).__name__ == "Tensor":
            found.append(each)
        elif type(value).__name__ in ("TensorList", "OptionalTensorList"):
            found += [item for item in value.items if item >= 0]
    return found


def _is_planned(plan: Any, place: int) -> bool:
    """Whether a tensor's memory is the run's: constants lie in the file."""
    return not plan.values[place].val.data_buffer_idx


def _codes(plan: Any, arguments: Any) -> dict[str, Any] | None:
    """What `quantize_per_tensor(input, scale, zero_point, quant_min, quant_max, dtype)` rounds to; see torch's op."""
    values = [plan.values[each].val for each in arguments[1:5]]
    scale = getattr(values[0], "double_val", None)
    zero_point, low, high = (getattr(each, "int_val", None) for each in values[1:])
    if scale is None or zero_point is None:
        return None
    return {"scale": scale, "zero_point": zero_point, "low": low, "high": high}


def _dtype(value: Any) -> str:
    """As NumPy calls it."""
    names = {"BYTE": "uint8", "CHAR": "int8", "SHORT": "int16", "INT": "int32", "LONG": "int64", "HALF": "float16"}
    names |= {"FLOAT": "float32", "DOUBLE": "float64", "BOOL": "bool", "BFLOAT16": "bfloat16"}
    return names.get(getattr(getattr(value, "scalar_type", None), "name", ""), "")


def _array(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return np.asarray(value)
    return np.array((value.float() if value.dtype == torch.bfloat16 else value).detach().numpy())
