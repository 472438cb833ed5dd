"""What every runtime has to do. A new one is tested by being listed."""

import importlib.metadata
import time
from statistics import median

import numpy as np
import pytest
import torch

from bitwright.hw_constraints.backends import Backend, Session, get_backend, list_backends
from bitwright.quant.errors import InputError

TORCH_REFERENCES = ("eager", "inductor")
PACKAGES = {"eager": "torch", "inductor": "torch"}
COMPILES_FOR_LONG = [pytest.mark.slow]


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=COMPILES_FOR_LONG if name == "inductor" else []) for name in list_backends()],
)
def backend(request) -> Backend:
    backend = get_backend(request.param)
    if reason := backend.available():
        pytest.skip(reason)
    return backend


@pytest.fixture(scope="module")
def artifact(backend, reference, reference_file):
    return reference if backend.name in TORCH_REFERENCES else reference_file


@pytest.fixture(scope="module")
def session(backend, artifact) -> Session:
    return backend.load(artifact, threads=1)


def test_run_equals_the_reference(session, reference, image):
    expected = reference(torch.from_numpy(image)).detach().numpy()
    results = session.run({"image": image})
    assert list(results) == ["output"]
    # float32 sums of 576 products in another order: relative error of some 1e-6.
    np.testing.assert_allclose(results["output"], expected, rtol=1e-4, atol=1e-5)


def test_results_do_not_change_behind_the_callers_back(session, image):
    first = session.run({"image": image})["output"]
    kept = first.copy()
    session.run({"image": -image})
    np.testing.assert_array_equal(first, kept)


def test_inputs_and_outputs_are_described(backend, session, image):
    session.run({"image": image})
    assert [spec.name for spec in session.input_infos] == ["image"]
    assert [(spec.name, spec.dtype, spec.shape) for spec in session.output_infos] == [("output", "float32", (1, 10))]
    if backend.name not in TORCH_REFERENCES:
        assert (session.input_infos[0].dtype, session.input_infos[0].shape) == ("float32", image.shape)


def test_profile_sums_to_about_the_time_of_a_run(session, image):
    def run_us() -> float:
        start = time.perf_counter()
        session.run({"image": image})
        return (time.perf_counter() - start) * 1e6

    ratios = []
    # A call costs more than its kernels on a busy machine; wide enough for that, narrow enough for a wrong unit.
    for _ in range(6):
        whole_us = median(run_us() for _ in range(20))
        ratios.append(sum(kernel.time_us for kernel in session.profile({"image": image}, 20)) / whole_us)
        if 0.1 < ratios[-1] < 1.4:
            return
    pytest.fail(f"kernels take {ratios} of a run")


def test_profile_finds_the_convolutions_and_their_precision(session, image):
    kernels = session.profile({"image": image}, 3)
    convolutions = [kernel for kernel in kernels if "conv" in kernel.op.lower() and kernel.precision != "other"]
    assert len(convolutions) == 2
    assert {kernel.precision for kernel in convolutions} == {"float32"}
    convolution_us = sum(kernel.time_us for kernel in kernels if "conv" in kernel.op.lower())
    assert convolution_us > 0.5 * sum(kernel.time_us for kernel in kernels)


def test_executed_graph_holds_the_kernels(session, image):
    kernels = session.profile({"image": image}, 2)
    executed = {node.name: node.op for node in session.executed_graph()}
    assert {kernel.name: kernel.op for kernel in kernels} == executed


def test_version_is_the_packages(backend):
    installed = importlib.metadata.version(PACKAGES.get(backend.name, backend.name))
    assert backend.version().split("+")[0] == installed.split("+")[0]


def test_one_thread_computes_on_one_processor(session, image):
    session.run({"image": image})
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(30):
        session.run({"image": image})
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert cpu < 1.2 * wall


def test_threads_are_in_the_settings(backend, artifact, image):
    session = backend.load(artifact, threads=2)
    assert session.threads == 2
    assert "2" in session.settings.values()
    before = torch.get_num_threads()
    session.run({"image": image})
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"inputs are \[\]; the model takes \['image'\]"),
        ({"picture": np.zeros(1, np.float32)}, r"inputs are \['picture'\]; the model takes \['image'\]"),
    ],
)
def test_wrong_inputs(session, inputs, message):
    with pytest.raises(InputError, match=message):
        session.run(inputs)


def test_wrong_shape(backend, session):
    message = "cannot run it" if backend.name in TORCH_REFERENCES else r"'image' has shape .* takes \(1, 16, 40, 40\)"
    with pytest.raises(InputError, match=message):
        session.run({"image": np.zeros((1, 3, 40, 40), np.float32)})


def test_no_threads(backend, artifact):
    with pytest.raises(InputError, match="threads = 0; at least 1 is needed"):
        backend.load(artifact, threads=0)


def test_bad_artifact(backend, tmp_path):
    if backend.name in TORCH_REFERENCES:
        with pytest.raises(InputError, match=f"'{backend.name}' loads a torch.nn.Module or a callable, not PosixPath"):
            backend.load(tmp_path / "a.onnx")
        return
    with pytest.raises(InputError, match=r"a\.onnx: no such file"):
        backend.load(tmp_path / "a.onnx")
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match=rf"a\.onnx: {backend.name} cannot load it: .{{10}}"):
        backend.load(tmp_path / "a.onnx")
    with pytest.raises(InputError, match=rf"model of 8 bytes: {backend.name} cannot load it: .{{10}}"):
        backend.load(b"no model")
