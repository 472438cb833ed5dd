import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PACKAGES = ("quant", "hw_constraints", "qat", "nas", "experiments")


def test_the_listing_is_the_one_that_was_agreed() -> None:
    script = HERE / "public_api.py"
    found = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True).stdout
    agreed = (HERE / "public_api.txt").read_text(encoding="utf-8")
    assert found == agreed, f"after a deliberate change: {sys.executable} {script} --write"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_public_name_is_a_module_too(package: str) -> None:
    # Importing the module would put it in the name's place.
    module = importlib.import_module(f"bitwright.{package}")
    assert set(module.__all__).isdisjoint(found.name for found in pkgutil.iter_modules(module.__path__))


@pytest.mark.parametrize("package", PACKAGES)
def test_unknown_names_are_attribute_errors(package: str) -> None:
    module = importlib.import_module(f"bitwright.{package}")
    with pytest.raises(AttributeError, match=f"module 'bitwright.{package}' has no attribute 'Grahp'"):
        _ = module.Grahp
