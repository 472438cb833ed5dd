# ruff: noqa: E501 (messages stand as users see them)
"""What a user may get wrong about quantization: one message, exit code 2, and nothing that was written is lost."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from bitwright.experiments.console import Console
from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.run import run_recipe
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.preparations import PREPARATIONS
from bitwright.quant.ptq import quantize
from bitwright.quant.quantized_model import QuantizedModel

HEAD = "name: t\ntarget: x86-vnni\nmodel: {kind: digits_mobilenet}\ndata: {kind: digits}\n"
OVERRIDES = HEAD + "quantize:\n  overrides:\n"
ONE_MESSAGE = [
    (OVERRIDES + "  - {module: stem.0, keep_float: true}\n  - {module: 'stem.*', weights: {format: int4}}\n",
     "r.yaml:7: quantize.overrides[0] (module 'stem.0') never holds: quantize.overrides[1] (module 'stem.*') in r.yaml:8 "
     "selects all of it, and the later one wins; remove one, or put the narrower one behind the wider one"),
    (OVERRIDES + "  - {operator: linear, keep_float: true}\n  - {operator: linear, weights: {format: int4}}\n",
     "r.yaml:7: quantize.overrides[0] (operator 'linear') never holds: quantize.overrides[1] (operator 'linear') in "
     "r.yaml:8 selects all of it, and the later one wins; remove one, or put the narrower one behind the wider one"),
    (OVERRIDES + "  - {module: stem.0, keep_float: true, weights: {format: int4}}\n",
     "r.yaml:7: quantize.overrides[0]: keep_float leaves these in float, where weights say nothing; remove one of them"),
    (HEAD + "quantize: {weights: {granularity: per_block, block_size: 100}}\n",
     "r.yaml:5: quantize.weights.granularity = 'per_block'; target 'x86-vnni' accepts int8 symmetric per_channel"),
    (HEAD + "quantize: {weights: {format: float8_e4m3fn}}\n",
     "r.yaml:5: quantize.weights.format = 'float8_e4m3fn'; target 'x86-vnni' accepts int8 symmetric per_channel"),
    (HEAD + "quantize: {mixed: {budget: {latency: 2.0}}}\n",
     "r.yaml:5: quantize.mixed.budget.latency = 2.0; a number is a share of the way from float (0) to the formats (1); "
     "an amount has its unit"),
    (HEAD + "quantize: {mixed: {budget: {size: 3 parsec}}}\n",
     "r.yaml:5: quantize.mixed.budget.size = '3 parsec'; expected a share of the way from float to the scheme's own "
     "formats (0 to 1), or an amount in B, kB, MB, GB"),
    (HEAD + "quantize: {mixed: {budget: {size: 0.5}, formats: [int8, int13]}}\n",
     "r.yaml:5: quantize.mixed.formats[1] = 'int13'; unknown number format of quantize.mixed.formats 'int13'; there are: "
     "float32, fp8, int16, int4, int8 (did you mean 'int16'?)"),
    (HEAD + "evaluate: {metric: top5}\n",
     "r.yaml:5: evaluate.metric = 'top5'; built in are top1, miou, agreement (did you mean 'top1'?); others come from "
     "evaluate.entry"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), ONE_MESSAGE)
def test_contradictions_are_found_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(text)
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        load_recipe("r.yaml")


def test_an_operator_that_the_target_does_not_quantize_is_named_with_those_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(OVERRIDES + "  - {operator: konv2d, keep_float: true}\n")
    message = (
        r"^r\.yaml:7: quantize\.overrides\[0\]\.operator = 'konv2d'; target 'x86-vnni' quantizes no such operator, so "
        r"there is nothing to override; it quantizes .*conv2d, .*\(did you mean 'conv2d'\?\)$"
    )
    with pytest.raises(InputError, match=message):
        load_recipe("r.yaml")


def test_narrower_overrides_behind_wider_ones_are_no_contradiction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(
        OVERRIDES + "  - {module: 'stem.*', keep_float: true}\n  - {module: stem.0, weights: {format: int4}}\n"
    )
    assert len(load_recipe("r.yaml").quantize.overrides) == 2


def test_from_the_shell_it_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    text, message = ONE_MESSAGE[0]
    (tmp_path / "r.yaml").write_text(text)
    command = [sys.executable, "-m", "bitwright.experiments.cli", "run", "r.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"bitwright: {message}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.yaml"]


CODE = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(512, 4)).eval()

def broken():
    model = network()
    model[0].weight.data[0, 0, 0, 0] = float("inf")
    return model

def pictures(size, count=8):
    return [(torch.randn(1, 3, size, size), torch.zeros(1, dtype=torch.int64)) for _ in range(count)]

def data():
    return pictures(12)

def one():
    return {"calibrate": pictures(12, 1), "evaluate": pictures(12)}

def other_size():
    return {"calibrate": pictures(12) + pictures(16), "evaluate": pictures(12)}

def other_size_to_score():
    return {"calibrate": pictures(12), "evaluate": pictures(16)}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    module = f"bad_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(CODE)
    (tmp_path / "r.yaml").write_text(
        f"name: t\ntarget: x86-vnni\nmodel: {{entry: {module}:network}}\ndata: {{entry: {module}:data}}\n"
        "calibrate: {samples: 16, min_samples: 1}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return module


@pytest.mark.parametrize(
    ("override", "until", "message"),
    [
        ("quantize.overrides=[{module: '2.convolution', keep_float: true}]", "quantize",
         "quantize.overrides[0].module = '2.convolution': selects nothing in the network; it has 0, 1, 2, 3, 4"),
        ("quantize.overrides=[{module: '*', keep_float: true}]", "quantize",
         "nothing in the network is quantized by scheme 'x86-vnni': "),
        ("model.entry={m}:broken", "quantize",
         "0.weight contains NaN or infinity; check the checkpoint it was loaded from"),
        ("data.entry={m}:other_size", "quantize",
         "input $input: got float32[1, 3, 16, 16]; the model was captured with float32[1, 3, 12, 12]; give samples like "
         "those, or capture it with an example like these"),
        ("calibrate={samples: 16, min_samples: 1, observer: min_max, observer_arguments: {percentil: 99.0}}", "quantize",
         "unknown argument of observer 'min_max' 'percentil'; there are: none"),
        ("calibrate={samples: 16, min_samples: 1, observer: mse, observer_arguments: {candidate: 9}}", "quantize",
         "unknown argument of observer 'mse' 'candidate'; there are: candidates, power, smallest (did you mean "
         "'candidates'?)"),
        ("quantize.mixed={min_sqnr_db: 200, minimise: size}", "quantize",
         "quantize.mixed: only float32 in every layer keeps what is asked for, so nothing is left to quantize; the nearest "
         "that can be kept: "),
        ("quantize.mixed={budget: {size: 1 B}}", "quantize",
         "quantize.mixed: no assignment of int8, float32 keeps size ≤ 1e-06 MB; the nearest that can be kept: size = "),
    ],
)  # fmt: skip
def test_what_only_the_network_and_the_data_can_tell(here: str, override: str, until: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        run_recipe(
            load_recipe("r.yaml", [override.replace("{m}", here)]),
            Path("run"),
            until=until,
            console=Console(quiet=True),
        )
    assert message in str(raised.value)


def test_what_was_written_before_is_kept(here: str) -> None:
    run_recipe(load_recipe("r.yaml"), Path("run"), until="quantize", console=Console(quiet=True))
    before = {path: path.read_bytes() for path in Path("run/stages/quantize").iterdir()}
    with pytest.raises(InputError):
        run_recipe(
            load_recipe("r.yaml", [f"model.entry={here}:broken"]),
            Path("run"),
            until="quantize",
            console=Console(quiet=True),
        )
    assert {path: path.read_bytes() for path in Path("run/stages/quantize").iterdir()} == before


def test_pictures_of_another_size_to_score(here: str) -> None:
    with pytest.raises(InputError) as raised:
        run_recipe(
            load_recipe("r.yaml", [f"data.entry={here}:other_size_to_score"]),
            Path("run"),
            until="evaluate",
            console=Console(quiet=True),
        )
    assert str(raised.value) == (
        "data: a batch to score holds [1, 3, 16, 16], the network was captured with [1, 3, 12, 12], and its artefact takes "
        "no other size; give samples of one size, or example_inputs of the size to score"
    )
    assert Path("run/stages/quantize/quantized.onnx").is_file()


def test_one_picture_calibrates_where_the_recipe_permits_it(here: str) -> None:
    record = run_recipe(
        load_recipe("r.yaml", [f"data.entry={here}:one"]), Path("run"), until="quantize", console=Console(quiet=True)
    )
    note = "calibrated with 1 samples, all that the data have; calibrate.samples = 16 asks for more"
    assert note in record.stages["quantize"].result["notes"]


def plain(change: str, samples: list[torch.Tensor], **how: object) -> tuple[nn.Module, QuantizedModel]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(512, 4)).eval()
    with torch.no_grad():
        if change == "dead channel":
            model[0].weight[2] = 0
            model[0].bias[2] = 0
        if change == "dead layer":
            model[0].weight.zero_()
        if change == "denormal weights":
            model[0].weight.mul_(1e-42)
    captured = capture(model, (samples[0],))
    return model, quantize(captured, load_target("x86-vnni").scheme(), samples, **how)  # type: ignore[arg-type]


NORMAL = [torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(i)) for i in range(4)]


@pytest.mark.parametrize(
    ("change", "samples"),
    [
        ("dead channel", NORMAL), ("dead layer", NORMAL), ("denormal weights", NORMAL), ("", NORMAL[:1]),
        ("", [torch.zeros(1, 3, 12, 12)] * 4), ("", [-5 - x.abs() for x in NORMAL]), ("", [1e-42 * x for x in NORMAL]),
    ],
    ids=["dead channel", "dead layer", "denormal weights", "one picture", "all zero", "all negative", "denormal input"],
)  # fmt: skip
@pytest.mark.parametrize(
    "how",
    [{}, {"equalization": True}, *({"preparations": [name]} for name in PREPARATIONS.names())],
    ids=lambda how: " ".join(map(str, how.get("preparations", how))) or "plain",
)
def test_degenerate_ranges_give_scales_above_zero_and_results_like_float(
    change: str, samples: list[torch.Tensor], how: dict[str, object]
) -> None:
    model, quantized = plain(change, samples, **how)
    assert all(bool((each.scale > 0).all() and each.scale.isfinite().all()) for each in quantized.qparams.values())
    with torch.no_grad():
        wanted, found = model(samples[0]), quantized.run(samples[0])
    assert torch.allclose(found, wanted, atol=0.15 * float(wanted.abs().max()))


def test_a_scheme_without_any_operator_says_so(here: str) -> None:
    with pytest.raises(InputError) as raised:
        run_recipe(
            load_recipe(
                "r.yaml",
                ["quantize.overrides=[{operator: conv2d, keep_float: true}, {operator: linear, keep_float: true}]"],
            ),
            Path("run"),
            until="quantize",
            console=Console(quiet=True),
        )
    assert str(raised.value) == (
        "nothing in the network is quantized by scheme 'x86-vnni': kept in float by the recipe's quantize.overrides[0]; "
        "name another target, or lift the overrides that keep layers in float"
    )
