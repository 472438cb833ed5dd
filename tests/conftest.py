"""On how many examples properties are tried: fewer where slow tests are left out."""

import pytest
from hypothesis import settings

# For tests that say no number of their own.
settings.register_profile("fast", max_examples=25, deadline=None)
settings.register_profile("all", max_examples=300, deadline=None)


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("fast" if config.option.markexpr == "not slow" else "all")
