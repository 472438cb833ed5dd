"""What `lower`, `explore`, `regions` and recipes refuse: each message word for word."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bitwright.experiments.cli import build_app
from bitwright.experiments.output_file import writing
from bitwright.hw_constraints.explore_axes import Axis
from bitwright.hw_constraints.target import load_target
from bitwright.quant.errors import InputError

SOURCE = """
import sys
from torch import nn


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = nn.Conv2d(3, 3, 1)
        self.last = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.last(self.shared(self.shared(x)))


def net():
    return Tower()


def ends_the_process():
    sys.exit(7)
"""


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_refused.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def bitwright(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(build_app(), list(arguments))
    return result.exit_code, result.stdout, result.stderr


LOWER = ("lower", "no_such:network", "--target", "edge-tpu")
EXPLORE = ("explore", "no_such:network", "--target", "edge-tpu", "--vary", "memory.sram=4,8MB")


@pytest.mark.parametrize("command", [LOWER, EXPLORE])
@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("x.xyz", "--picture = 'x.xyz'; expected a name that ends in .png, .svg, .pdf"),
        ("x", "--picture = 'x'; expected a name that ends in .png, .svg, .pdf"),
        ("gone/x.png", "--picture = 'gone/x.png': there is no folder 'gone'; make it first"),
    ],
)
def test_picture_that_cannot_be_drawn(command: tuple[str, ...], file: str, message: str) -> None:
    assert bitwright(*command, "--picture", file) == (2, "", f"bitwright: {message}\n")


def test_trace_into_a_folder() -> None:
    assert bitwright(*LOWER, "--trace", ".") == (2, "", "bitwright: --trace = '.': is a folder; name a file in it\n")


def test_full_disk_is_a_message() -> None:
    with (
        pytest.raises(InputError, match=r"^--trace = '/dev/full': cannot be written \(No space left on device\)"),
        writing("--trace", Path("/dev/full")),
    ):
        Path("/dev/full").write_text("{}")


@pytest.mark.parametrize("command", ["lower", "regions"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "1x3:int65",
            "--input = '1x3:int65': type 'int65' is none of float32, float16, bfloat16, float64, int8, uint8, int16, "
            "int32, int64, bool (did you mean 'int64'?)",
        ),
        (
            "1x3:quint8",
            "--input = '1x3:quint8': type 'quint8' is none of float32, float16, bfloat16, float64, int8, uint8, int16, "
            "int32, int64, bool (did you mean 'uint8'?)",
        ),
        (
            "99999999x99999999x99999x3",
            "--input = '99999999x99999999x99999x3': 2,999,969,940,000,600,299,997 values do not fit into the memory "
            "of this machine; give a smaller shape",
        ),
        ("1x3x4²", "--input = '1x3x4²'; expected a shape with an optional type, such as 1x3x224x224 or 1x20:int64"),
    ],
)
def test_inputs_that_are_none(command: str, given: str, message: str) -> None:
    target = ["--target", "edge-tpu"] if command == "lower" else []
    found = bitwright(command, "users_refused:net", *target, "--input", given)
    assert found == (2, "", f"bitwright: {message}\n")


def test_shape_beyond_64_bits() -> None:
    code, _, text = bitwright("regions", "users_refused:net", "--input", f"{10**23}x3")
    assert (code, "Traceback" in text) == (2, False)
    assert text.endswith(" values do not fit into the memory of this machine; give a smaller shape\n")


def test_entry_that_ends_the_process_is_misuse() -> None:
    code, _, text = bitwright("regions", "users_refused:ends_the_process", "--input", "1x3x8x8")
    assert code == 2
    assert text.startswith("bitwright: MODEL = 'users_refused:ends_the_process': raised SystemExit: 7\n  at ")


def test_regions_of_a_recipe() -> None:
    message = "bitwright: MODEL = 'recipe.yaml'; expected package.module:function that returns the network\n"
    assert bitwright("regions", "recipe.yaml") == (2, "", message)


def test_whole_model_states_no_shares() -> None:
    code, text, _ = bitwright("regions", "users_refused:net", "--input", "1x3x8x8")
    assert (code, text.splitlines()[-1]) == (0, "the model is captured whole")


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (("a:b", "a:b=3"), "model 'a:b' is named twice; let it count twice with a:b=2"),
        (("a.onnx",), "model 'a.onnx': expected package.module:function or a recipe; `bitwright lower` reads ONNX"),
    ],
)
def test_models_that_explore_does_not_take(models: tuple[str, ...], message: str) -> None:
    found = bitwright("explore", *models, "--target", "edge-tpu", "--vary", "memory.sram=4,8MB")
    assert found == (2, "", f"bitwright: {message}\n")


RECIPE = "name: a\ntarget: edge-tpu\nmodel: {entry: 'a:b'}\ndata: {entry: 'a:b'}\n"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=-1", "seed = -1; expected greater than or equal to 0"),
        (f"seed={2**63}", f"seed = {2**63}; expected less than or equal to {2**63 - 1}"),
        ("measure.seconds=.inf", "measure.seconds = inf; expected a finite number"),
        ("evaluate.gate.bound=.nan", "evaluate.gate.bound = nan; expected a finite number"),
        (
            "measure.on=board",
            "measure.on = 'board'; device 'board': expected ssh://user@host:port/folder, adb://SERIAL/folder or "
            "local:/folder",
        ),
        ("measure.on=ftp://board/x", "measure.on = 'ftp'; unknown transport 'ftp'; there are: adb, local, ssh"),
    ],
)
def test_values_that_recipes_do_not_take(override: str, message: str) -> None:
    Path("recipe.yaml").write_text(RECIPE)
    found = bitwright("validate", "recipe.yaml", override)
    assert found == (2, "", f"bitwright: command line: {message}\n")


def test_runtimes_on_a_device_are_those_of_its_runner() -> None:
    Path("recipe.yaml").write_text(RECIPE)
    on = "measure.on=local:/tmp/device"
    assert bitwright("validate", "recipe.yaml", on, "measure.runtimes=[benchmark_app]")[0] == 0
    message = "measure.runtimes[0] = 'eager'; unknown runtime of a device 'eager'; there are: benchmark_app, litert, "
    code, _, text = bitwright("validate", "recipe.yaml", on, "measure.runtimes=[eager]")
    assert code == 2 and text.startswith(f"bitwright: command line: {message}"), text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seconds", "-1"), "--seconds = -1; expected a number above 0"),
        (("--seconds", "nan"), "--seconds = nan; expected a number above 0"),
        (("--threads", "0"), "--threads = 0; at least 1 is needed"),
        (("a.onnx",), "a.onnx: is named twice; copy it to measure it against itself"),
    ],
)
def test_measurements_that_cannot_be(arguments: tuple[str, ...], message: str) -> None:
    Path("a.onnx").touch()
    assert bitwright("measure", "a.onnx", *arguments) == (2, "", f"bitwright: {message}\n")


@pytest.mark.parametrize("damage", [": [", "5", "a: b"])
def test_folder_of_a_run_with_a_damaged_recipe(damage: str) -> None:
    Path("recipe.yaml").write_text(RECIPE)
    Path("out").mkdir()
    Path("out/recipe.resolved.yaml").write_text(damage)
    message = "out/recipe.resolved.yaml: damaged, so that nothing says which recipe ran here; name another folder with"
    assert bitwright("run", "recipe.yaml", "--out", "out", "--quiet") == (2, "", f"bitwright: {message} --out\n")


def test_range_of_seven_digits_is_read() -> None:
    axis = Axis.parse("memory.sram=524288..2097152kB", load_target("edge-tpu"))
    assert [each.text for each in axis.settings] == ["8 MB", "524288 kB", "1048576 kB", "2097152 kB"]


def test_range_of_too_many_points() -> None:
    message = r"^vary memory.sram=1..999999999TiB: more than 20 doublings from end to end; name the values$"
    with pytest.raises(InputError, match=message):
        Axis.parse("memory.sram=1..999999999TiB", load_target("edge-tpu"))


def test_module_that_runs_twice_is_shown_with_the_names_that_explain_takes() -> None:
    command = ["lower", "users_refused:net", "--target", "edge-tpu", "--input", "1x3x8x8"]
    code, text, _ = bitwright(*command)
    assert code == 0
    labels = [line.split("  ")[0] for line in text.splitlines()[1:4]]
    assert labels == ["shared (conv2d)", "shared (conv2d_1)", "last"]
    assert bitwright(*command, "--explain", "conv2d_1")[1].startswith("conv2d_1: conv2d, in module 'shared'")
