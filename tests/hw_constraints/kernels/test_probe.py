from __future__ import annotations

import json

import pytest

from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.kernels import FusionRules, known_rules, probe_rules


@pytest.mark.parametrize("runtime", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)])
def test_the_installed_version_still_does_what_is_known_of_it(runtime: str) -> None:
    if known_rules(runtime).version != get_backend(runtime).version():
        # Another version may fuse otherwise; what is known is data of one version and is not to hold for others.
        pytest.skip(f"rules are known of {known_rules(runtime).version}, here is {get_backend(runtime).version()}")
    assert probe_rules(runtime) == known_rules(runtime)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_rules_come_back_from_json(runtime: str) -> None:
    rules = known_rules(runtime)
    assert FusionRules.from_json(json.loads(json.dumps(rules.to_json()))) == rules
