"""What must not be imported, looked at in fresh interpreters."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "optuna", "onnxruntime", "onnx", "openvino", "tensorboard", "matplotlib", "sklearn", "scipy", "PIL")

PROBE = """
import json, logging, runpy, sys
handlers = list(logging.getLogger().handlers)
sys.argv = {argv!r}
try:
    {action}
except SystemExit as end:
    assert end.code in (0, None), end.code
assert logging.getLogger().handlers == handlers, "logging was configured"
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def modules_after(action: str, argv: list[str], cwd: Path) -> set[str]:
    code = PROBE.format(action=action, argv=argv)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("package", ["quant", "hw_constraints", "qat", "nas", "experiments"])
def test_packages_import_light(package: str, tmp_path: Path) -> None:
    assert modules_after(f"import bitwright.{package}", [""], tmp_path).isdisjoint(HEAVY)


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["run", "--help"], ["ls"], ["ls", "--json"], ["targets"], ["targets", "h200"], ["validate", "digits"]],
    ids=" ".join,
)
def test_commands_that_never_import_torch(arguments: list[str], tmp_path: Path) -> None:
    action = "from bitwright.experiments.cli import main; main()"
    assert modules_after(action, ["bitwright", *arguments], tmp_path).isdisjoint(HEAVY)


def test_help_and_validate_take_half_as_long_as_importing_torch(tmp_path: Path) -> None:
    """The best of two each, in processor time: other processes then disturb neither."""

    def best(*arguments: str) -> float:
        return min(processor_seconds(list(arguments), tmp_path) for _ in range(2))

    torch = best("-c", "import torch")
    assert best("-m", "bitwright.experiments.cli", "--help") <= 0.5 * torch
    assert best("-m", "bitwright.experiments.cli", "validate", "digits") <= 0.5 * torch


def processor_seconds(arguments: list[str], cwd: Path) -> float:
    before = _children_seconds()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=cwd)
    return _children_seconds() - before


def _children_seconds() -> float:
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
