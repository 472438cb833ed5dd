import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def _sibling(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


imports = _sibling("imports")
FILES = sorted(path for floor in imports.FLOORS for path in (ROOT / floor).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_imports_from_a_floor_above(path: Path) -> None:
    package = ".".join(("bitwright", *path.relative_to(ROOT).parent.parts))
    assert imports.violations(path.read_text(), package) == []


@pytest.mark.parametrize(
    "source",
    [
        "import bitwright.nas",
        "import bitwright.nas.spaces as spaces",
        "from bitwright import nas",
        "from bitwright.nas.objective import score",
        "from ... import nas",
        "from ...nas import objective",
        "def late():\n    from bitwright.nas import study",
        "import importlib\nimportlib.import_module('bitwright.nas.spaces')",
        "POINT = 'bitwright.nas.spaces:SPACE'",
    ],
)
def test_each_way_up_is_seen(source: str) -> None:
    (message,) = imports.violations(source, "bitwright.quant.passes")
    assert message.endswith("quant imports from nas, which is above it")


@pytest.mark.parametrize("source", ["import quant", "from quant.graph import Graph", "import hw_constraints.target"])
def test_the_twin_import_is_seen(source: str) -> None:
    (message,) = imports.violations(source, "bitwright.experiments")
    assert message.startswith("line 1: import bitwright.")


@pytest.mark.parametrize(
    "source",
    [
        "from bitwright.quant.graph import Graph",
        "from ..quant import graph",
        "from . import target",
        "'Prose may name bitwright.nas.spaces.'",
        "import numpy",
    ],
)
def test_ways_down_and_sideways_are_allowed(source: str) -> None:
    assert imports.violations(source, "bitwright.hw_constraints") == []


def test_the_twin_import_is_refused_at_run_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    with pytest.raises(ImportError, match=r"import bitwright\.quant, not quant"):
        importlib.import_module("quant")
