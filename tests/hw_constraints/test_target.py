import importlib.metadata
import pickle
import subprocess
import sys
import textwrap
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import yaml

from bitwright.hw_constraints import target_files
from bitwright.hw_constraints.operators import OPERATORS
from bitwright.hw_constraints.target import Capability, list_targets, load_target
from bitwright.quant.errors import InputError
from bitwright.quant.observers.base import observer_names

OWN = sorted(path.stem for path in target_files.FOLDER.glob("[!_]*.yaml"))
SMALL = """\
id: small
version: 1
description: A small accelerator.
capabilities: [scheme, lint]
sources:
  manual: {title: Its manual}
artifact: {format: onnx_qdq, opset: 20, runtimes: [onnxruntime]}
engines:
  array:
    kind: mac_array
    reads: [sram]
    clock: {value: 1 GHz, source: manual, verified: true}
memories:
  sram:
    kind: sram
    size: {value: 2 MiB, source: manual, verified: false}
numerics:
  activations:
    - {format: int8, symmetric: false}
  weights:
    - {format: int8, symmetric: true, granularity: per_channel}
  bias: int32
  source: manual
  verified: true
operators:
  quantized: [conv2d, add]
  fused_patterns:
    - conv2d -> relu
  others: refused
  source: manual
  verified: true
shapes: {dynamic: none, source: manual, verified: true}
constraints:
  kernel:
    operators: [conv2d]
    require: kernel_h <= 32
    because: its window is 32 wide
    suggestion: use a smaller kernel
    source: manual
    verified: true
"""


def written(folder: Path, text: str, name: str = "small.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", OWN)
class TestEveryTarget:
    """The contract of a target file."""

    def test_it_loads_under_its_name_and_serves_what_it_claims(self, name: str) -> None:
        target = load_target(name)
        assert target.id == name and name in list_targets()
        assert Capability.SCHEME in target.capabilities and target.scheme().name == name

    def test_each_operator_has_one_place(self, name: str) -> None:
        operators = load_target(name).operators
        assert operators.quantized and operators.quantized | operators.shared_qparams | operators.refused <= OPERATORS
        assert all(chain[0] in operators.quantized for chain in operators.fused_patterns)
        assert all(len(chain) > 1 for chain in operators.fused_patterns)

    def test_each_statement_has_a_source_and_each_source_a_use(self, name: str) -> None:
        data, locations = target_files.read(target_files.find(name))
        used = set(_values_of(data, "source"))
        own = {each for each in data["sources"] if ("sources", each) in locations.lines}
        assert own <= used <= set(data["sources"])

    def test_its_observers_exist(self, name: str) -> None:
        numerics = load_target(name).numerics
        specs = [
            *numerics.activations,
            *numerics.weights,
            *(s for each in numerics.operator_weights.values() for s in each),
        ]
        assert {spec.observer for spec in specs} <= set(observer_names())

    def test_what_nobody_verified_is_said(self, name: str) -> None:
        data, _ = target_files.read(target_files.find(name))
        doubted = {
            field.path.rsplit(".", 1)[0] for field in load_target(name).unverified() if "decomposed" in field.path
        }
        others = [field for field in load_target(name).unverified() if "decomposed" not in field.path]
        assert len(others) + len(doubted) == sum(value is False for value in _values_of(data, "verified"))


def _values_of(data: Any, key: str) -> list[Any]:
    if isinstance(data, dict):
        return [*([data[key]] if key in data else []), *(v for item in data.values() for v in _values_of(item, key))]
    return [value for item in data for value in _values_of(item, key)] if isinstance(data, list) else []


def test_listing_and_loading_import_neither_torch_nor_a_runtime() -> None:
    code = """
    import sys
    from bitwright.hw_constraints.target import list_targets, load_target
    from bitwright.hw_constraints.target_page import describe
    from bitwright.hw_constraints.lint import lint, rule_names
    for name in list_targets():
        describe(load_target(name))
    rule_names()
    print({"torch", "onnxruntime", "optuna", "onnx", "openvino"} & set(sys.modules))
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize("name", OWN)
def test_targets_travel_to_other_processes(name: str) -> None:
    target = load_target(name)
    assert pickle.loads(pickle.dumps(target)) == target
    assert pickle.loads(pickle.dumps(target.scheme())) == target.scheme()


def test_a_users_own_file(tmp_path: Path) -> None:
    target = load_target(written(tmp_path, SMALL))
    assert target.id == "small" and target.memories["sram"].figures["size"].quantity.value == 2 * 2**20
    assert [field.path for field in target.unverified()] == ["memories.sram.size"]
    assert [each.name for each in target.constraints_on("conv2d")] == ["kernel"] and not target.constraints_on("add")
    assert load_target(str(tmp_path / "small.yaml")).id == "small"


def test_another_permitted_format_can_be_chosen() -> None:
    target = load_target("ethos-u85-1024")
    assert target.scheme().activations.format.name == "int8"
    chosen = target.scheme(activations="int16").activations
    assert chosen.format.name == "int16" and chosen.symmetric
    with pytest.raises(InputError, match=r"weights = 'int3'; target 'ethos-u85-1024' accepts int8"):
        target.scheme(weights="int3")


def test_what_the_file_does_not_say_is_refused_by_name() -> None:
    message = r"target 'hexagon-htp' does not serve cost: the width of the matrix unit, .* not public; its file says"
    with pytest.raises(InputError, match=message):
        load_target("hexagon-htp").require(Capability.COST)


def test_inheritance(tmp_path: Path) -> None:
    written(tmp_path, SMALL)
    child = """
    id: large
    version: 2
    description: Its larger sister.
    extends: small.yaml
    memories:
      sram:
        size: {value: 32 MB, source: manual, verified: true}
    """
    target = load_target(written(tmp_path, textwrap.dedent(child), "large.yaml"))
    assert (target.id, target.version, target.extends) == ("large", 2, "small.yaml")
    assert target.memories["sram"].figures["size"].quantity.value == 32e6
    assert target.engines["array"].figures["clock"].quantity.text == "1 GHz"
    assert target.constraints[0].require.text == "kernel_h <= 32" and not target.unverified()


def test_a_mistake_in_a_parent_is_reported_where_it_was_written(tmp_path: Path) -> None:
    written(tmp_path, SMALL.replace("bias: int32", "bias: int33"))
    child = written(tmp_path, "id: c\nversion: 1\ndescription: d\nextends: small.yaml\n", "child.yaml")
    with pytest.raises(InputError, match=r"small\.yaml:22: numerics\.bias = 'int33'; accepts int32, float32"):
        load_target(child)


def test_circular_inheritance(tmp_path: Path) -> None:
    for name, parent in (("a", "b"), ("b", "c"), ("c", "a")):
        written(tmp_path, f"id: {name}\nextends: {parent}.yaml\n", f"{name}.yaml")
    with pytest.raises(InputError, match=r"c\.yaml:2: extends = 'a\.yaml'; it is circular \(a -> b -> c -> a\)"):
        load_target(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("bias: int32", "bais: int32", r"small\.yaml:22: numerics\.bais: no such key \(did you mean 'bias'\?\)"),
        ("version: 1", "version: 1\nversion: 2", r"small\.yaml:3: duplicate key 'version' \(first on line 2\)"),
        (
            "value: 2 MiB",
            "value: 2",
            r"small\.yaml:16: memories\.sram\.size\.value = 2; the unit is missing; write for",
        ),
        ("value: 2 MiB", "value: 2 MIB", r"small\.yaml:16: .*; unit 'MIB' is none of B, kB, MB"),
        ("value: 2 MiB", "value: 2 GHz", r"unit 'GHz' is none of"),
        ("verified: false", "verified: maybe", r"memories\.sram\.size\.verified = 'maybe'; expected a valid boolean"),
        (
            "format: int8, symmetric: false",
            "format: int17, symmetric: false",
            r"small\.yaml:19: .*'int17'; accepts .*int8",
        ),
        (
            "quantized: [conv2d, add]",
            "quantized: [conv2, add]",
            r"small\.yaml:26: .*'conv2'; no such operator type \(did",
        ),
        (
            "quantized: [conv2d, add]",
            "quantized: [add, add]",
            r"operator 'add' stands in quantized and again in quantized",
        ),
        (
            "  others: refused",
            "  decomposed: {into: {silu: [mul]}, source: manual, verified: true}\n  others: refused",
            r"decomposed 'silu' has the part 'mul', which is not quantized or shared_qparams",
        ),
        ("- conv2d -> relu", "- relu", r"'relu'; expected a chain such as conv2d -> batch_norm -> relu"),
        ("- conv2d -> relu", "- conv2d -> rellu", r"no such operator type \(did you mean 'relu'\?\)"),
        ("kernel_h <= 32", "kernel <= 32", r"conv2d has no property 'kernel' \(did you mean 'kernel_[dhw]'\?\)"),
        ("kernel_h <= 32", "open('x')", r"\"open\('x'\)\"; \"open\('x'\)\" is not allowed in a predicate"),
        ("kernel_h <= 32", "kernel_h <= 'x'", r"cannot be decided: '<=' not supported"),
        ("kernel_h <= 32", "32", r"constraints\.kernel\.require = 32; expected a condition such as kernel_h <= 32"),
        ("others: refused", "others: gpu", r"small\.yaml:29: operators\.others = 'gpu'; accepts float, host, refused"),
        (
            "lint]",
            "lintt]",
            r"capabilities\[1\] = 'lintt'; accepts scheme, lint, lower, cost \(did you mean 'lint'\?\)",
        ),
        ("    because: its window is 32 wide\n", "", r"small\.yaml:34: constraints\.kernel\.because is missing"),
        ("id: small", "id: Small one", r"small\.yaml:1: id = 'Small one'; "),
        ("version: 1", "version: one", r"small\.yaml:2: version = 'one'; expected a valid integer"),
        (
            "granularity: per_channel",
            "granularity: per_row",
            r"granularity = 'per_row'; accepts per_tensor, per_channel, per_block",
        ),
    ],
)
def test_mistakes_are_named_with_file_and_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SMALL
    with pytest.raises(InputError, match=message):
        load_target(written(tmp_path, SMALL.replace(old, new, 1)))


def test_a_source_that_is_not_listed(tmp_path: Path) -> None:
    text = SMALL.replace("2 MiB, source: manual", "2 MiB, source: manaul")
    with pytest.raises(
        InputError, match=r"small\.yaml:16: memories\.sram\.size\.source = 'manaul'; sources has manual"
    ):
        load_target(written(tmp_path, text))


def test_float_formats_have_no_zero_point(tmp_path: Path) -> None:
    text = SMALL.replace("format: int8, symmetric: false", "format: float8_e4m3fn, symmetric: false")
    with pytest.raises(InputError, match=r"float8_e4m3fn has no zero point: symmetric must be true"):
        load_target(written(tmp_path, text))


def test_activations_are_per_tensor(tmp_path: Path) -> None:
    text = SMALL.replace("symmetric: false", "symmetric: false, granularity: per_channel")
    with pytest.raises(InputError, match=r"activations are kept per_tensor"):
        load_target(written(tmp_path, text))


@pytest.mark.parametrize("name", ["x86", "ethos-u85", "../targets/h200"])
def test_an_unknown_target_lists_the_choices(name: str) -> None:
    with pytest.raises(InputError, match=rf"unknown target '{name}'; there are: amd-dpu, arm-xnnpack, .*x86-vnni"):
        load_target(name)


def test_a_near_miss_is_suggested() -> None:
    with pytest.raises(InputError, match=r"did you mean 'x86-vnni'\?"):
        load_target("x86-vni")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: no such target file; targets by name: amd-dpu"):
        load_target(tmp_path / "none.yaml")


def _register(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    def entry_points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        return [point for point in points if group == point.group and name in (None, point.name)]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)


def test_another_package_registers_a_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vendor_npu.py").write_text(f"TARGET = {str(written(tmp_path, SMALL))!r}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    _register(monkeypatch, EntryPoint("small", "vendor_npu:TARGET", "bitwright.targets"))
    assert "small" in list_targets() and "vendor_npu" not in sys.modules
    assert load_target("small").description == "A small accelerator."


def test_a_name_registered_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    _register(monkeypatch, EntryPoint("h200", "vendor:TARGET", "bitwright.targets"))
    with pytest.raises(InputError, match=r"target 'h200' is registered twice"):
        list_targets()


def test_our_files_stay_readable() -> None:
    for name in OWN:
        text = (target_files.FOLDER / f"{name}.yaml").read_text()
        assert max(map(len, text.splitlines())) <= 140 and yaml.safe_load(text)["id"] == name
