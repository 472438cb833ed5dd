import contextlib
import re
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from bitwright.quant import yaml_lines
from bitwright.quant.errors import InputError, unknown


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Weights(Strict):
    bits: Literal[4, 8] = 8
    observer: Literal["min_max", "entropy"] = "min_max"


class Digits(Strict):
    kind: Literal["digits"]
    size: int = 64


class Folder(Strict):
    kind: Literal["folder"]
    root: str


class Document(Strict):
    name: str
    weights: Weights = Weights()
    data: Annotated[Digits | Folder, Field(discriminator="kind")] | None = None
    layers: tuple[Weights, ...] = ()
    rate: float = 0.1


def read(text: str) -> Document:
    return yaml_lines.validate(Document, *yaml_lines.parse(text, "doc.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "doc.yaml: the file is empty; expected a mapping of keys"),
        ("# only a comment\n", "doc.yaml: the file is empty; expected a mapping of keys"),
        ("- 1\n", "doc.yaml:1: holds a list; expected a mapping of keys"),
        ("a: \x00", "doc.yaml: not a text file (character 3); expected YAML"),
        ("name: x\nrate: 1\nname: y\n", "doc.yaml:3: duplicate key 'name' (first on line 1)"),
        ("layers:\n  - bits: 4\n    bits: 8\n", "doc.yaml:3: duplicate key 'layers[0].bits' (first on line 2)"),
        ("name: &n x\nrate: *n\n", "doc.yaml:2: aliases (*name) are not allowed; write the value out"),
        ("[a]: 1\n", "doc.yaml:1: key ['a'] is a list; keys are plain words"),
        ("[" * 5000, "doc.yaml: nested too deeply"),
        ("name: [1\n", "doc.yaml:2: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("rate: 1\n", "doc.yaml:1: name is missing"),
        (
            "name: x\nrate: fast\n",
            "doc.yaml:2: rate = 'fast'; expected a valid number, unable to parse string as a number",
        ),
        ("name: x\nweights:\n  bits: 3\n", "doc.yaml:3: weights.bits = 3; accepts 4 or 8"),
        (
            "name: x\nweights:\n  observer: min_mx\n",
            "doc.yaml:3: weights.observer = 'min_mx'; accepts min_max, entropy (did you mean 'min_max'?)",
        ),
        (
            "name: x\nwieghts:\n  bits: 3\n",
            "doc.yaml:2: wieghts: no such key (did you mean 'weights'?); allowed: name, weights, data, layers, rate",
        ),
        (
            "name: x\ndata:\n  kind: folder\n  rot: a\n",
            "doc.yaml:2: data.root is missing\n"
            "doc.yaml:4: data.rot: no such key (did you mean 'root'?); allowed: kind, root",
        ),
        (
            "name: x\ndata: {kind: digts}\n",
            "doc.yaml:2: data.kind = 'digts'; accepts digits, folder (did you mean 'digits'?)",
        ),
        ("name: x\ndata: {}\n", "doc.yaml:2: data = {}; needs the key 'kind'"),
        ("name: x\nlayers:\n  -\n    bits: 8\n  - bits: 5\n", "doc.yaml:5: layers[1].bits = 5; accepts 4 or 8"),
    ],
)
def test_messages_name_file_line_key_value_and_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        read(text)


def test_custom_tags_do_not_run_code() -> None:
    with pytest.raises(InputError, match=r"^doc.yaml:1: the tag '.*os.system' is not allowed; write plain"):
        read("name: !!python/object/apply:os.system [ls]\n")


def test_files_that_are_no_text_or_not_there(tmp_path: Path) -> None:
    binary = tmp_path / "net.onnx"
    binary.write_bytes(b"\x08\xff\xfe\x00")
    with pytest.raises(InputError, match=rf"{binary}: not a text file \(byte 1 is not UTF-8\); expected YAML"):
        yaml_lines.validate_model(Document, binary)
    with pytest.raises(InputError, match=f"{tmp_path / 'none.yaml'}: no such file"):
        yaml_lines.validate_model(Document, tmp_path / "none.yaml")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        yaml_lines.validate_model(Document, tmp_path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1_000", 1000), ("0x1F", 31), ("no", "no"), ("on", "on"), ("true", True), ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"), ("", None), (".5", 0.5), ("[1, 2.0]", [1, 2.0]), ("a.b:c", "a.b:c"), ("-3", -3),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    assert yaml_lines.value_of(text) == value
    assert type(yaml_lines.value_of(text)) is type(value)


def test_places_other_than_the_file_are_named() -> None:
    data, locations = yaml_lines.parse("name: x\nrate: 1\n", "doc.yaml")
    elsewhere = yaml_lines.Locations(locations.file, locations.lines, {("weights", "bits"): "command line"})
    data["weights"] = {"bits": 3}
    with pytest.raises(InputError, match=r"^command line: weights.bits = 3; accepts 4 or 8$"):
        yaml_lines.validate(Document, data, elsewhere)
    assert locations.where(("rate",)) == "doc.yaml:2"
    assert locations.line(("weights", "bits")) == 1


def test_unknown_lists_the_choices_and_suggests_the_nearest() -> None:
    error = unknown("target", "x86-vni", ["x86-vnni", "h200"])
    assert str(error) == "unknown target 'x86-vni'; there are: h200, x86-vnni (did you mean 'x86-vnni'?)"
    assert str(unknown("target", "q", [])) == "unknown target 'q'; there are: none"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_survives(value: float) -> None:
    assert yaml_lines.value_of(repr(value)) == value


@given(st.text(max_size=200))
def test_no_text_ends_in_another_exception(text: str) -> None:
    with contextlib.suppress(InputError):
        read(text)
