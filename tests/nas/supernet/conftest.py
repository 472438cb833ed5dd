import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """`tiny_elastic.py` beside this file."""
    spec = importlib.util.spec_from_file_location("tiny_elastic", Path(__file__).with_name("tiny_elastic.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
