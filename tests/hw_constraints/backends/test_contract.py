"""What every runtime has to do. A new one is tested by being listed."""

import importlib.metadata
import re
import time
from statistics import median

import numpy as np
import pytest
import torch
from reference_network import CASES, Case

from bitwright.hw_constraints.backends import Backend, Session, get_backend, list_backends
from bitwright.quant.errors import InputError

TORCH = ("eager", "inductor", "cuda", "cuda_inductor")
PACKAGES = dict.fromkeys(TORCH, "torch") | {"litert": "ai-edge-litert", "onnxruntime_tensorrt": "onnxruntime-gpu"}
COMPILES_FOR_LONG = ("inductor", "cuda_inductor")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[pytest.mark.slow] if name in COMPILES_FOR_LONG else []) for name in list_backends()
    ],
)
def backend(request) -> Backend:
    backend = get_backend(request.param)
    if reason := backend.available():
        pytest.skip(reason)
    return backend


@pytest.fixture(scope="module")
def case(backend, reference, tmp_path_factory) -> Case:
    if backend.name in TORCH:
        return Case(reference)
    return CASES[backend.reads[0]](reference, tmp_path_factory.mktemp("reference"))


@pytest.fixture(scope="module")
def session(backend, case) -> Session:
    return backend.load(case.artifact, threads=1)


@pytest.fixture(scope="module")
def feed(case, image):
    return case.feed(image)


def test_run_equals_the_reference(session, case, reference, image, feed):
    expected = reference(torch.from_numpy(image)).detach().numpy()
    results = session.run(feed)
    assert list(results) == [case.output]
    # float32 sums of 576 products in another order: relative error of some 1e-6.
    np.testing.assert_allclose(results[case.output], expected, rtol=1e-4, atol=1e-5)


def test_the_content_of_a_file_does_as_well_as_its_path(backend, case, session, feed):
    if not case.suffix:
        pytest.skip("this runtime is given a module here, which has no bytes to cut or to pass")
    results = backend.load(case.artifact.read_bytes()).run(feed)
    np.testing.assert_array_equal(results[case.output], session.run(feed)[case.output])


def test_results_do_not_change_behind_the_callers_back(session, case, image, feed):
    first = session.run(feed)[case.output]
    kept = first.copy()
    session.run(case.feed(-image))
    np.testing.assert_array_equal(first, kept)


def test_inputs_and_outputs_are_described(backend, session, case, feed):
    session.run(feed)
    assert [spec.name for spec in session.input_infos] == [case.input]
    outputs = [(spec.name, spec.dtype, spec.shape) for spec in session.output_infos]
    assert outputs == [(case.output, "float32", (1, 10))]
    if case.suffix:
        assert (session.input_infos[0].dtype, session.input_infos[0].shape) == ("float32", feed[case.input].shape)


def test_profile_sums_to_about_the_time_of_a_run(session, feed):
    def run_us() -> float:
        start = time.perf_counter()
        session.run(feed)
        return (time.perf_counter() - start) * 1e6

    ratios = []
    # A call costs more than its kernels on a busy machine; wide enough for that, narrow enough for a wrong unit.
    for _ in range(6):
        whole_us = median(run_us() for _ in range(20))
        ratios.append(sum(kernel.time_us for kernel in session.profile(feed, 20)) / whole_us)
        if 0.1 < ratios[-1] < 1.4:
            return
    pytest.fail(f"kernels take {ratios} of a run")


def test_profile_finds_the_convolutions_and_their_precision(session, feed):
    kernels = session.profile(feed, 3)
    convolutions = [kernel for kernel in kernels if "conv" in kernel.op.lower() and kernel.precision != "other"]
    assert len(convolutions) == 2
    assert {kernel.precision for kernel in convolutions} == {"float32"}
    convolution_us = sum(kernel.time_us for kernel in kernels if "conv" in kernel.op.lower())
    assert convolution_us > 0.5 * sum(kernel.time_us for kernel in kernels)


def test_executed_graph_holds_the_kernels(session, feed):
    kernels = session.profile(feed, 2)
    executed = {node.name: node.op for node in session.executed_graph()}
    assert {kernel.name: kernel.op for kernel in kernels} == executed


def test_version_is_the_packages(backend):
    installed = importlib.metadata.version(PACKAGES.get(backend.name, backend.name))
    assert backend.version().split("+")[0] == installed.split("+")[0]


def test_one_thread_computes_on_one_processor(session, feed):
    session.run(feed)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(30):
        session.run(feed)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert cpu < 1.2 * wall


def test_threads_are_in_the_settings(backend, case, feed):
    session = backend.load(case.artifact, threads=2)
    assert session.threads == 2
    assert "2" in session.settings.values()
    before = torch.get_num_threads()
    session.run(feed)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("names", [[], ["picture"], ["image", "picture"]])
def test_wrong_inputs(session, case, feed, names):
    inputs = {case.input if name == "image" else name: feed[case.input] for name in names}
    message = re.escape(f"inputs are {sorted(inputs)}; the model takes ['{case.input}']")
    with pytest.raises(InputError, match=message):
        session.run(inputs)


def test_wrong_shape(session, case, image):
    wrong = case.feed(image[:, :3])
    shape = re.escape(f"'{case.input}' has shape {wrong[case.input].shape}; the model takes")
    with pytest.raises(InputError, match=shape if case.suffix else "cannot run it"):
        session.run(wrong)


def test_no_threads(backend, case):
    with pytest.raises(InputError, match="threads = 0; at least 1 is needed"):
        backend.load(case.artifact, threads=0)


def test_bad_artifact(backend, case, tmp_path):
    if not case.suffix:
        message = f"'{backend.name}' loads a torch.nn.Module, a callable, a CapturedModel or a .pt2 file, not int"
        with pytest.raises(InputError, match=message):
            backend.load(1)
        return
    path = tmp_path / f"a{case.suffix}"
    with pytest.raises(InputError, match=rf"a\{case.suffix}: no such file"):
        backend.load(path)
    path.write_bytes(b"no model")
    with pytest.raises(InputError, match=rf"a\{case.suffix}: {backend.name} cannot load it: .{{10}}"):
        backend.load(path)
    with pytest.raises(InputError, match=rf"model of 8 bytes: {backend.name} cannot load it: .{{10}}"):
        backend.load(b"no model")


def test_half_a_file(backend, case):
    if not case.suffix:
        pytest.skip("this runtime is given a module here, which has no bytes to cut or to pass")
    content = case.artifact.read_bytes()
    with pytest.raises(InputError, match=f"bytes: {backend.name} cannot load it: .{{10}}"):
        backend.load(content[: len(content) // 2])


def test_another_runtimes_file(backend, tmp_path):
    path = tmp_path / ("a.pte" if "pte" not in backend.reads else "a.plan")
    path.write_bytes(b"whatever")
    message = rf"a{path.suffix}: is an? [^;]*; {backend.name} reads an? [^;]*; an? [^;]* is read by \w+"
    with pytest.raises(InputError, match=message):
        backend.load(path)
