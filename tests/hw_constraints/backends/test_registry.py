"""Runtimes by name: listed without importing them, refused with the choices."""

import importlib.metadata
import subprocess
import sys
from types import SimpleNamespace

import pytest

from bitwright.hw_constraints.backends import base, get_backend, list_backends
from bitwright.hw_constraints.backends.onnxruntime import OnnxRuntimeBackend
from bitwright.hw_constraints.backends.openvino import OpenVINOBackend
from bitwright.quant.errors import InputError, MissingExtraError


def registered(monkeypatch, *points):
    entries = [importlib.metadata.EntryPoint(name, value, "bitwright.backends") for name, value in points]

    def entry_points(*, group, name=None):
        return [entry for entry in entries if group == "bitwright.backends" and name in (None, entry.name)]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)


def test_listing_and_proving_import_no_runtime_before_it_is_asked():
    code = (
        "import sys, bitwright.hw_constraints.backends as b, bitwright.hw_constraints.measure\n"
        "b.list_backends(); b.get_backend('onnxruntime'); b.get_backend('openvino')\n"
        "print([m for m in ('torch', 'onnxruntime', 'openvino', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_name_lists_the_choices():
    with pytest.raises(InputError, match=r"unknown backend 'openvin'; there are: cuda, .*did you mean 'openvino'"):
        get_backend("openvin")


def test_third_parties_are_found(monkeypatch):
    registered(monkeypatch, ("mine", "bitwright.hw_constraints.backends.eager:BACKEND"))
    assert "mine" in list_backends()
    assert get_backend("mine").name == "eager"


def test_a_name_twice_is_refused(monkeypatch):
    registered(monkeypatch, ("eager", "bitwright.hw_constraints.backends.eager:BACKEND"))
    with pytest.raises(InputError, match="backend 'eager' is registered twice"):
        list_backends()


def test_something_else_than_a_backend_is_refused(monkeypatch):
    registered(monkeypatch, ("mine", "pathlib:Path"))
    with pytest.raises(InputError, match=r"backend 'mine': .* lacks name, reads, available, version or load"):
        get_backend("mine")


@pytest.mark.parametrize("backend", [OnnxRuntimeBackend(), OpenVINOBackend()])
def test_a_missing_package_ends_in_its_install_line(monkeypatch, backend):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert backend.available() == f"package {backend.name} is not installed"
    message = rf"backend '{backend.name}' needs: pip install 'bitwright\[{backend.name}\]'"
    with pytest.raises(MissingExtraError, match=message):
        backend.load(b"")
    with pytest.raises(MissingExtraError, match=message):
        backend.version()


def test_inductor_says_when_no_compiler_is_there(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "needs a C++ compiler" in str(get_backend("inductor").available())


def test_messages_are_one_line():
    assert base.one_line(ValueError("a\n  b\n\nc ")) == "a b c"


def test_shapes_that_an_artefact_does_not_state_are_not_checked():
    base.check_inputs({"x": SimpleNamespace(shape=(3,))}, [base.TensorSpec(name="x")])
