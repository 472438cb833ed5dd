"""CUDA without a device: reading a trace, and what is refused."""

from types import SimpleNamespace

import pytest
import torch
from torch._C._autograd import DeviceType

from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.backends.cuda_session import device_kernels
from bitwright.quant.errors import InputError

DEVICE_RUNTIMES = ("cuda", "cuda_inductor", "tensorrt", "onnxruntime_tensorrt")


def event(name, start, duration, *, device=DeviceType.CUDA, correlation=0, linked=0, dtypes=()):
    values = {"name": name, "start_ns": start, "duration_ns": duration, "device_type": device, "dtypes": list(dtypes)}
    values |= {"correlation_id": correlation, "linked_correlation_id": linked}
    return SimpleNamespace(**{key: lambda value=value: value for key, value in values.items()})


def test_kernels_are_those_of_the_device_with_the_types_of_what_launched_them():
    trace = [
        event("aten::conv2d", 0, 9000, device=DeviceType.CPU, correlation=7, dtypes=["c10::Half", "c10::Half"]),
        event("aten::relu", 9000, 900, device=DeviceType.CPU, correlation=8, dtypes=["float"]),
        event("Memcpy HtoD (Pageable -> Device)", 1000, 500, linked=3),
        event("elementwise_kernel", 30000, 2000, linked=8),
        event("sm90_xmma_fprop", 20000, 5000, linked=7),
    ]
    assert device_kernels(trace) == [("sm90_xmma_fprop", "float16", 5.0), ("elementwise_kernel", "float32", 2.0)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
@pytest.mark.parametrize("name", DEVICE_RUNTIMES)
def test_without_a_device_the_reason_is_said(name):
    backend = get_backend(name)
    reason = backend.available()
    assert reason and "\n" not in reason
    with pytest.raises(InputError, match=r"cannot be used here|needs: pip install"):
        backend.load(torch.nn.Identity() if "cuda" in name else b"")


def test_a_processors_torch_says_so(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert get_backend("cuda").available() == f"torch {torch.__version__} is built without CUDA"
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert get_backend("cuda").available() == "torch finds no CUDA device"
