"""Maps the top-level folders to `bitwright.*`; everything else is in pyproject.toml.

The list of packages is derived from the folders, so that a new subpackage is never missed in a wheel.
"""

from setuptools import find_packages, setup

ROOMS = ("quant", "qat", "nas", "hw_constraints", "experiments", "recipes")
PACKAGES = [name for room in ROOMS for name in (room, *(f"{room}.{sub}" for sub in find_packages(room)))]

setup(
    packages=[f"bitwright.{name}" for name in PACKAGES],
    package_dir={f"bitwright.{name}": name.replace(".", "/") for name in PACKAGES},
)
