import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    """`nas_synthetic.py` beside this file, under a name that worker processes find, too."""
    spec = importlib.util.spec_from_file_location("nas_synthetic", Path(__file__).with_name("nas_synthetic.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
