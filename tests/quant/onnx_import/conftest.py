"""The small networks of the exporters' tests, captured once, and what the exporters write of them."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"onnx_import_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_EXPORT = _module(Path(__file__).parent.parent / "export" / "conftest.py")
NETWORKS: Any = _EXPORT.NETWORKS


@pytest.fixture(params=NETWORKS.NETWORKS)
def example(request: pytest.FixtureRequest) -> Any:
    """A small network and its example arguments, one after the other."""
    if request.param not in _EXPORT.EXAMPLES:
        _EXPORT.EXAMPLES[request.param] = _EXPORT.Example(request.param)
    return _EXPORT.EXAMPLES[request.param]


@pytest.fixture
def recurrent() -> Any:
    return NETWORKS.Recurrent().eval()


@pytest.fixture(scope="session")
def examples() -> Any:
    """All of these networks by name."""
    return {name: _EXPORT.EXAMPLES.setdefault(name, _EXPORT.Example(name)) for name in NETWORKS.NETWORKS}
