from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from nets_by_hand import residual


@pytest.fixture(scope="session")
def residual_float() -> bytes:
    return residual(coded=False)


@pytest.fixture(scope="session")
def residual_int8() -> bytes:
    return residual(coded=True)
