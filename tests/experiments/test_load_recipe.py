# ruff: noqa: E501 (messages stand as users see them)
import re
from pathlib import Path

import pytest

from bitwright.experiments import load_recipe as module
from bitwright.experiments.load_recipe import load_recipe
from bitwright.quant.errors import InputError

GOOD = """\
name: mine
target: x86-vnni
model: {kind: digits_mobilenet}
data: {kind: digits}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("mine.yaml")
    path.write_text(GOOD)
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(InputError) as refused:
        load_recipe(str(path), overrides)
    return str(refused.value)


def test_a_short_recipe_is_enough(recipe: Path) -> None:
    loaded = load_recipe(str(recipe))
    assert (loaded.name, loaded.target, loaded.calibrate.samples) == ("mine", "x86-vnni", 200)


TARGETS = "amd-dpu, arm-xnnpack, edge-tpu, ethos-u55-128, ethos-u65-512, ethos-u85-1024, h200, hexagon-htp, orin-dla, tensorrt-orin, tensorrt-thor, tesla-fsd-hw3, ti-tda4, x86-avx2, x86-dynamic, x86-vnni, x86-vnni-openvino, x86-weights-only"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.yaml: the file is empty; expected a mapping of keys"),
        (GOOD + "name: again\n", "mine.yaml:5: duplicate key 'name' (first on line 1)"),
        (GOOD + "seed: one\n", "mine.yaml:5: seed = 'one'; expected a valid integer, unable to parse string as an integer"),
        (GOOD + "quantise: {}\n", "mine.yaml:5: quantise: no such key (did you mean 'quantize'?); allowed: name, "
         "description, target, seed, model, data, example_inputs, evaluate, train, calibrate, quantize, export, predict, prove, "
         "parity, measure, lower, autotune, qat, search, report"),
        (GOOD + "train:\n  epoch: 3\n", "mine.yaml:6: train.epoch: no such key (did you mean 'epochs'?); allowed: "
         "epochs, batch, lr, weight_decay, label_smoothing, sparsity"),
        (GOOD + "train: {epochs: 0}\n", "mine.yaml:5: train.epochs = 0; expected greater than or equal to 1"),
        (GOOD.replace("x86-vnni", "x86-vni"), "mine.yaml:2: target = 'x86-vni'; unknown target 'x86-vni'; there are: "
         f"{TARGETS} (did you mean 'x86-vnni'?)"),
        (GOOD.replace("digits_mobilenet", "mobilenet"), "mine.yaml:3: model.kind = 'mobilenet'; unknown model "
         "'mobilenet'; there are: cifar_resnet, digits_mobilenet, elastic_conv, elastic_part, elastic_segmenter, "
         "elastic_transformer, mobile_detector, mobile_segmenter, mobilenet_v2, mobilenet_v2_segmenter, row_gru (did you mean 'mobilenet_v2'?)"),
        (GOOD.replace("kind: digits}", "kind: digit}"), "mine.yaml:4: data.kind = 'digit'; unknown data set 'digit'; "
         "there are: digit_scenes, digits, image_folder, segmentation_folder, segmentation_patches (did you mean 'digits'?)"),
        (GOOD + "calibrate: {observer: percentil}\n", "mine.yaml:5: calibrate.observer = 'percentil'; unknown observer "
         "'percentil'; there are: entropy, min_max, moving_average, mse, percentile (did you mean 'percentile'?)"),
        (GOOD + "quantize:\n  weights: {observer: mes}\n", "mine.yaml:6: quantize.weights.observer = 'mes'; unknown "
         "observer 'mes'; there are: entropy, min_max, moving_average, mse, percentile (did you mean 'mse'?)"),
        (GOOD + "quantize: {prepare: [smoothquan]}\n", "mine.yaml:5: quantize.prepare[0] = 'smoothquan'; unknown "
         "preparation 'smoothquan'; there are: absorb_bias, awq, clip_weights, learn_rotations, reestimate_norms, rotate, smoothquant, "
         "split_channels (did you mean 'smoothquant'?)"),
        (GOOD + "prove: {runtimes: [onnxruntim]}\n", "mine.yaml:5: prove.runtimes[0] = 'onnxruntim'; unknown backend "
         "'onnxruntim'; there are: cuda, cuda_inductor, eager, executorch, inductor, litert, onnxruntime, "
         "onnxruntime_tensorrt, openvino, tensorrt (did you mean 'onnxruntime'?)"),
        (GOOD + "quantize:\n  weights:\n    format: int16\n", "mine.yaml:7: quantize.weights.format = 'int16'; target "
         "'x86-vnni' accepts int8 symmetric per_channel"),
        (GOOD + "quantize:\n  overrides:\n    - module: head\n      activations: {format: float8_e5m2}\n",
         "mine.yaml:8: quantize.overrides[0].activations.format = 'float8_e5m2'; target 'x86-vnni' accepts uint8 "
         "asymmetric per_tensor"),
        (GOOD + "quantize:\n  overrides:\n    - keep_float: true\n", "mine.yaml:7: quantize.overrides[0] = "
         "{'keep_float': True}; needs either module (a glob such as features.0.*) or operator (such as linear)"),
        (GOOD.replace("{kind: digits_mobilenet}", "{width: 2}"), "mine.yaml:3: model = {'width': 2}; needs either kind "
         "(see `bitwright ls`) or entry (package.module:function)"),
        (GOOD.replace("digits_mobilenet}", "digits_mobilenet, widht: 2}"), "mine.yaml:3: model.widht: no such key (did "
         "you mean 'width'?); allowed: width, depth, kernel, expansion, classes"),
        (GOOD.replace("{kind: digits}", "\n  kind: image_folder\n  root: pictures"), "mine.yaml:6: data.root = "
         "'pictures'; no such folder"),
        (GOOD.replace("{kind: digits}", "{kind: image_folder}"), "mine.yaml:4: data.root is missing"),
        (GOOD.replace("{kind: digits_mobilenet}", "{entry: package.function}"), "mine.yaml:3: model.entry = "
         "'package.function'; String should match pattern '^[A-Za-z_][\\w.]*:[A-Za-z_]\\w*$'"),
    ],
)  # fmt: skip
def test_messages(recipe: Path, text: str, message: str) -> None:
    recipe.write_text(text)
    assert refusal(recipe) == message


def test_binary_and_missing_files(recipe: Path) -> None:
    recipe.write_bytes(b"\x89PNG\r\n")
    assert refusal(recipe) == "mine.yaml: not a text file (byte 0 is not UTF-8); expected YAML"
    assert refusal(Path("other.yaml")) == "other.yaml: no such file"
    assert re.fullmatch(
        r"unknown recipe 'digit'; there are: .*digits.* \(did you mean 'digits'\?\)", refusal(Path("digit"))
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs", "command line: 'epochs' is no key=value (such as train.epochs=3)"),
        ("trian.epochs=3", "command line: trian: no such key (did you mean 'train'?); allowed: name, description, "
         "target, seed, model, data, example_inputs, evaluate, train, calibrate, quantize, export, predict, prove, parity, "
         "measure, lower, autotune, qat, search, report"),
        ("train.epochs=many", "command line: train.epochs = 'many'; expected a valid integer, unable to parse string as "
         "an integer"),
        ("seed.x=1", "command line: 'seed.x=1': seed = 0 has no key 'x'"),
        ("target=h20", f"command line: target = 'h20'; unknown target 'h20'; there are: {TARGETS} (did you mean 'h200'?)"),
        ("quantize.weights.format=int3x", "command line: quantize.weights.format = 'int3x'; unknown number format 'int3x'"),
        ("data.size=4", "command line: data.size = 4; expected greater than or equal to 8"),
        ("search={scheduler: head, space: {kind: mobile_conv}}", "command line: search.scheduler = 'head'; give a Dask "
         "scheduler's address, such as tcp://head:8786 or tls://head:8786"),
        ("search={storage: 'mysql://db/x', space: {kind: mobile_conv}}", "command line: search.storage = "
         "'mysql://db/x'; give postgresql://host/database, or leave it out for SQLite in the run's folder"),
        ("search={storage: 'postgresql://me:secret@db/x', space: {kind: mobile_conv}}", "command line: search.storage = "
         "'postgresql://me:***@db/x'; a password in a recipe is kept and shown: set PGPASSWORD, or write it to ~/.pgpass"),
        ("search={storage: 'postgresql://db/x?password=secret', space: {kind: mobile_conv}}", "command line: search.storage "
         "= 'postgresql://db/x?password=***'; a password in a recipe is kept and shown: set PGPASSWORD, or write it to "),
        ("search={objectives: [], space: {kind: mobile_conv}}", "command line: search.objectives = []; give at least 1"),
        ("search={table: none.table, space: {kind: mobile_conv}}", "command line: search.table = 'none.table'; there is no "
         "such file; measure one first: bitwright measure kernels --out none.table"),
    ],
)  # fmt: skip
def test_messages_about_the_command_line(recipe: Path, override: str, message: str) -> None:
    recipe.write_text(GOOD + "seed: 0\n")
    assert refusal(recipe, override).startswith(message)


def test_overrides_reach_into_sections_and_lists(recipe: Path) -> None:
    recipe.write_text(GOOD + "quantize:\n  overrides:\n    - {module: head, keep_float: true}\n")
    overrides = [
        "train.lr=1e-4",
        "quantize.overrides.0.module=stem",
        "prove.runtimes=[openvino]",
        "seed=7",
        "train.epochs=2",
    ]
    loaded = load_recipe(str(recipe), overrides)
    assert loaded.train is not None
    assert (loaded.train.lr, loaded.train.epochs, loaded.seed) == (1e-4, 2, 7)
    assert loaded.quantize.overrides[0].module == "stem"
    assert loaded.prove.runtimes == ("openvino",)


def test_several_mistakes_are_named_at_once(recipe: Path) -> None:
    recipe.write_text(
        "name: mine\ntarget: x86-vnni\nmodel: {kind: digits_mobilenet}\ndata: {kind: digits}\nseeed: 1\nseed: x\n"
    )
    lines = refusal(recipe).splitlines()
    assert [line.split(": ")[0] for line in lines] == ["mine.yaml:6", "mine.yaml:5"]


def test_checking_runs_none_of_the_users_code(recipe: Path) -> None:
    Path("mymodel.py").write_text("raise RuntimeError('imported')")
    recipe.write_text(GOOD.replace("{kind: digits_mobilenet}", "{entry: mymodel:build, arguments: {depth: 3}}"))
    loaded = load_recipe(str(recipe))
    assert loaded.model.settings == {"arguments": {"depth": 3}}


def test_an_entry_takes_arguments_and_nothing_else(recipe: Path) -> None:
    recipe.write_text(GOOD.replace("{kind: digits_mobilenet}", "{entry: mymodel:build, depth: 3}"))
    assert refusal(recipe) == "mine.yaml:3: model.depth: no such key; allowed: arguments"


@pytest.mark.parametrize(("has_dot_product", "target"), [(True, "x86-vnni"), (False, "x86-avx2")])
def test_this_cpu_is_the_target_of_the_processor(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, has_dot_product: bool, target: str
) -> None:
    from dataclasses import replace

    machine = replace(
        module.this_machine(),
        architecture="x86_64",
        isa=frozenset({"avx2", "avx512_vnni"} if has_dot_product else {"avx2"}),
    )
    monkeypatch.setattr(module, "this_machine", lambda: machine)
    assert load_recipe(str(recipe), ["target=this-cpu"]).target == target
    monkeypatch.setattr(module, "this_machine", lambda: replace(machine, architecture="riscv64"))
    assert refusal(recipe, "target=this-cpu") == (
        "command line: target = 'this-cpu'; there is none for riscv64 yet, name a target"
    )


def test_the_resolved_recipe_is_the_same_recipe(recipe: Path) -> None:
    from bitwright.experiments.run_folder import resolved_yaml

    loaded = load_recipe("digits", ["train.lr=1e-5"])
    recipe.write_text(resolved_yaml(loaded))
    assert load_recipe(str(recipe)) == loaded
