"""Lists the public API: `python tests/house/public_api.py` prints it, `--write` writes `public_api.txt`."""

import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("quant", "hw_constraints", "qat", "nas", "experiments")
LISTING = Path(__file__).with_name("public_api.txt")


def listing() -> str:
    return "".join(f"{line}\n" for package in PACKAGES for line in _lines(f"bitwright.{package}"))


def _lines(package: str) -> Iterator[str]:
    module = importlib.import_module(package)
    for name in sorted(module.__all__):
        value = getattr(module, name)
        if inspect.isclass(value):
            yield f"{package}.{name} (class)"
        elif callable(value):
            yield f"{package}.{name}{inspect.signature(value)}"
        else:
            yield f"{package}.{name} ({type(value).__name__})"


if __name__ == "__main__":
    if "--write" in sys.argv:
        LISTING.write_text(listing(), encoding="utf-8")
    else:
        print(listing(), end="")
