"""What holds for every target file, not only for ours: order, inheritance, figures and bandwidths."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.hw_constraints import target_files
from bitwright.hw_constraints.lower.work import WorkKind
from bitwright.hw_constraints.quantity import Dimension, parse_quantity
from bitwright.hw_constraints.target import Target, list_targets, load_target
from bitwright.hw_constraints.target_hardware import Loop, Operand

NAMES = list_targets()
counts = st.integers(1, 4096)


def sourced(**statement: Any) -> dict[str, Any]:
    return {**statement, "source": "manual", "verified": True}


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    """A target file with one array, one memory beside it and one behind, and figures of its own."""
    image = draw(st.sampled_from([("out_y", "out_x"), ("out_pixels",)]))  # rows and columns, or both as one loop
    names = [str(loop) for loop in Loop if loop in image or not loop.startswith("out_") or loop is Loop.OUT_CHANNELS]
    loops = draw(st.dictionaries(st.sampled_from(names), st.integers(1, 64), min_size=1))
    macs = 1
    for count in loops.values():
        macs *= count
    engine = {
        "kind": "mac_array",
        "count": draw(st.integers(1, 8)),
        "runs": draw(st.lists(st.sampled_from([str(kind) for kind in WorkKind]), min_size=1, unique=True)),
        "reads": ["sram"],
        "macs": sourced(value=f"{macs} MAC/cycle"),
        "clock": sourced(value=f"{draw(counts)} MHz"),
        "array": sourced(dataflow="output_stationary", unroll=loops),
    }
    operands = draw(st.lists(st.sampled_from([str(each) for each in Operand]), min_size=1, unique=True))
    sram = {
        "kind": "sram",
        "size": sourced(value=f"{draw(counts)} KiB"),
        "operand_bandwidth": {each: sourced(value=f"{draw(counts)} B/cycle") for each in operands},
    }
    dram = {"kind": "dram", "bandwidth": sourced(value=f"{draw(counts)} MB/s")}
    return {
        "id": "drawn",
        "version": draw(counts),
        "description": "drawn",
        "capabilities": ["scheme", "lint", "lower", "cost"],
        "sources": {"manual": {"title": "manual"}},
        "artifact": {"format": "onnx_qdq", "runtimes": []},
        "engines": {"array": engine},
        "memories": {"sram": sram, "dram": dram},
        "links": {"dma": sourced(start="dram", end="sram")},
        "cost": {"model": "array"},
        "numerics": sourced(
            activations=[{"format": "int8", "symmetric": draw(st.booleans())}],
            weights=[{"format": draw(st.sampled_from(["int4", "int8"])), "symmetric": True}],
            bias="int32",
        ),
        "operators": sourced(
            quantized=["conv2d", "linear"], others=draw(st.sampled_from(["float", "host", "refused"]))
        ),
        "shapes": sourced(dynamic="none"),
    }


def loaded(data: dict[str, Any], *, parents: dict[str, dict[str, Any]] | None = None) -> Target:
    with tempfile.TemporaryDirectory() as folder:
        for name, parent in (parents or {}).items():
            (Path(folder) / name).write_text(yaml.safe_dump(parent))
        path = Path(folder) / "drawn.yaml"
        path.write_text(yaml.safe_dump(data))
        return dataclasses.replace(load_target(path), file="", extends=None)


@settings(max_examples=60, deadline=None)
@given(files())
def test_the_figures_are_those_of_the_file(data: dict[str, Any]) -> None:
    target = loaded(data)
    engine, sram = target.engines["array"], target.memories["sram"]
    given_clock = int(data["engines"]["array"]["clock"]["value"].split()[0]) * 1e6
    assert engine.clock_hz == given_clock and engine.count == data["engines"]["array"]["count"]
    assert engine.macs_per_second("int8") == pytest.approx(
        engine.count * engine.macs_per_cycle * given_clock if engine.macs_per_cycle else 0, rel=1e-12
    )
    per_cycle = [int(each["value"].split()[0]) for each in data["memories"]["sram"]["operand_bandwidth"].values()]
    assert sram.bytes_per_second(engine.clock_hz) == pytest.approx(sum(per_cycle) * given_clock, rel=1e-12)
    assert not target.unverified() and target.scheme().weights.format.name == data["numerics"]["weights"][0]["format"]


@settings(max_examples=40, deadline=None)
@given(files(), st.randoms(use_true_random=False))
def test_the_order_of_keys_means_nothing(data: dict[str, Any], draw: Any) -> None:
    def shuffled(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        items = list(value.items())
        draw.shuffle(items)
        return {key: shuffled(item) for key, item in items}

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.yaml"
        path.write_text(yaml.safe_dump(shuffled(data), sort_keys=False))
        assert dataclasses.replace(load_target(path), file="") == loaded(data)


@settings(max_examples=40, deadline=None)
@given(files(), files())
def test_a_child_is_its_parent_with_its_own_values_on_top(parent: dict[str, Any], child: dict[str, Any]) -> None:
    own = {"id": "drawn", "version": 7, "description": "d", "extends": "parent.yaml"}
    alone = loaded({**parent, "version": 7, "description": "d"})
    assert loaded(own, parents={"parent.yaml": parent}) == alone
    operand_bandwidth = {"operand_bandwidth": None}  # taken away first, else the operands of both would stand there
    middle = {"extends": "parent.yaml", "memories": {"sram": operand_bandwidth}, "engines": None}
    top = {**child, "extends": "middle.yaml"}
    assert loaded(top, parents={"parent.yaml": parent, "middle.yaml": middle}) == loaded(child)


@settings(max_examples=40, deadline=None)
@given(files(), st.sampled_from(["size", "bandwidth"]), st.booleans())
def test_what_is_not_verified_is_said_and_nothing_else(data: dict[str, Any], what: str, verified: bool) -> None:
    memory = "sram" if what == "size" else "dram"
    data["memories"][memory][what]["verified"] = verified
    assert [field.path for field in loaded(data).unverified()] == ([] if verified else [f"memories.{memory}.{what}"])


@given(st.integers(1, 10**9), st.sampled_from(["B", "kB", "MB", "GB", "KiB", "MiB", "GiB"]))
def test_a_size_is_its_number_times_its_unit(number: int, unit: str) -> None:
    base = 1024 if "i" in unit else 1000
    power = " KMG".index(unit[0].upper()) if unit != "B" else 0
    assert parse_quantity(f"{number} {unit}", Dimension.SIZE).value == number * base**power


@pytest.mark.parametrize("name", NAMES)
def test_each_of_ours_serves_a_capability_or_says_which_figure_is_missing(name: str) -> None:
    target = load_target(name)
    for capability in ("lower", "cost"):
        assert (capability in target.capabilities) != (capability in target.missing)
    for text in target.missing.values():
        assert text.strip() == text and len(text) > 20


@pytest.mark.parametrize("name", NAMES)
def test_each_figure_of_ours_was_read_somewhere(name: str) -> None:
    paths = [path for path, _, _, _ in load_target(name).statements()]
    assert len(paths) == len(set(paths)) and {"numerics", "operators", "shapes.dynamic"} <= set(paths)
    data, _ = target_files.read(target_files.find(name))
    assert data["sources"] and all(each.get("title") for each in data["sources"].values())
