"""The network that every runtime runs, and an image for it."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from reference_network import SHAPE, Reference, onnx_case


@pytest.fixture(scope="session")
def reference() -> Reference:
    return Reference().eval()


@pytest.fixture(scope="session")
def reference_file(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_case(reference, tmp_path_factory.mktemp("reference")).artifact


@pytest.fixture(scope="session")
def image() -> Any:
    return np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
