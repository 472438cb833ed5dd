"""Encodings as AIMET itself exports them, and damaged ones; those that we write are tested with their exporter."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitwright.quant.errors import InputError
from bitwright.quant.export.exporter import export_as
from bitwright.quant.onnx_import import ImportedModel, graph_from_onnx
from bitwright.quant.onnx_import.encodings import read_encodings
from bitwright.quant.onnx_import.to_captured import to_captured, to_quantized

AIMET = Path(__file__).parent / "aimet"
VERSIONS = ("0.6.1", "1.0.0", "2.0.0")


def read(version: str, folder: Path, content: Any = None) -> ImportedModel:
    """AIMET's network with its encodings beside it, or with others."""
    shutil.copy(AIMET / "network.onnx", folder / "network.onnx")
    text = (AIMET / f"{version}.encodings").read_text() if content is None else json.dumps(content)
    (folder / "network.encodings").write_text(text)
    return graph_from_onnx(folder / "network.onnx")


def content_of(version: str) -> Any:
    return json.loads((AIMET / f"{version}.encodings").read_text())


@pytest.mark.parametrize("version", VERSIONS)
def test_the_network_computes_what_aimet_simulates(version: str, tmp_path: Path) -> None:
    stored = np.load(AIMET / "simulated.npz")
    imported = read(version, tmp_path)
    quantized, _ = to_quantized(imported)
    image = torch.from_numpy(stored["image"])
    with torch.no_grad():
        ours, plain = quantized.run(image), to_captured(imported.graph, "network.onnx").run(image)
    theirs = torch.from_numpy(stored[version])
    step = float(imported.qparams[imported.graph.outputs[0]].scale)  # type: ignore[arg-type]
    # Equal where the sums of a layer are formed in one order; where they are not, a tie may fall the other way.
    assert (ours - theirs).abs().max() <= 1.01 * step
    assert (ours == theirs).float().mean() >= 0.9
    assert (plain == theirs).float().mean() < 0.2


@pytest.mark.parametrize("version", VERSIONS)
def test_layers_that_aimet_quantizes_run_on_codes(version: str, tmp_path: Path) -> None:
    imported = read(version, tmp_path)
    assert imported.plan is not None
    layers = {node.name for node in imported.graph.nodes if imported.graph.is_layer(node)}
    assert len(layers) == 5
    assert layers <= imported.plan.quantized
    assert set(imported.plan.biases) == layers - {"/mix/MatMul"}  # which has none
    bits = 16 if version == "1.0.0" else 8
    assert {spec.format.bits for spec in imported.plan.activations.values()} == {bits}
    axes = [imported.qparams[node.tensors[1]].axis for node in imported.graph.nodes if node.name in layers]
    assert axes == [0, 0, 1, 0, 0]  # the transposed convolution has its outputs second; the matrix was turned


def changed(version: str, name: str, /, **more: Any) -> Any:
    """AIMET's encodings with other fields in one entry; None takes a field out."""
    content = content_of(version)
    if version == "0.6.1":
        entries = next(
            part[name] for part in (content["param_encodings"], content["activation_encodings"]) if name in part
        )
    else:
        every = (
            content.get("encodings", []) + content.get("param_encodings", []) + content.get("activation_encodings", [])
        )
        entries = [entry for entry in every if entry["name"] == name]
    for entry in entries:
        entry.update(more)
        for key in [key for key, value in more.items() if value is None]:
            del entry[key]
    return content


@pytest.mark.parametrize(
    ("version", "content", "message"),
    [
        ("1.0.0", [], "network.encodings: version = None; there are: 0.6.1, 1.0.0, 2.0.0"),
        ("1.0.0", {"version": "0.4.0"}, "version = '0.4.0'; there are"),
        ("1.0.0", {"version": "1.0.0", "param_encodings": {}}, "param_encodings is a dict; version 1.0.0 has a list"),
        ("2.0.0", {"version": "2.0.0"}, "encodings is no list"),
        ("1.0.0", {"version": "1.0.0", "param_encodings": [{}]}, "an encoding without a name"),
        ("0.6.1", changed("0.6.1", "stem.weight", scale=None), "tensor 'stem.weight': scale is missing"),
        ("0.6.1", changed("0.6.1", "stem.weight", offset=-1.5), "an offset that is no whole number"),
        ("1.0.0", changed("1.0.0", "stem.weight", scale=[0.0] * 8), "a scale that is not above 0"),
        ("1.0.0", changed("1.0.0", "stem.weight", scale=[0.1]), "1 scales for 8 offsets"),
        ("1.0.0", changed("1.0.0", "stem.weight", enc_type="LPBQ"), "enc_type = 'LPBQ' has no counterpart here"),
        ("1.0.0", changed("1.0.0", "stem.weight", bw=64), "codes of type 'int64', which is no number format"),
        ("1.0.0", changed("1.0.0", "stem.weight", name="steam.weight"), "tensor 'steam.weight' is no value of the ONNX "
         "file beside it .did you mean 'stem.weight'.*different networks"),
        ("2.0.0", changed("2.0.0", "stem.weight", axis=1), "8 scales for the 3 channels along axis 1"),
        ("2.0.0", changed("2.0.0", "stem.weight", name="depth.weight"), "tensor 'depth.weight' stands there twice"),
        ("2.0.0", changed("2.0.0", "stem.weight", block_size=2), r"shape \[8, 3, 3, 3\]: 8 scales for"),
    ],
)  # fmt: skip
def test_damaged_encodings_are_named(version: str, content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read(version, tmp_path, content)


def test_what_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.encodings").write_text("{")
    with pytest.raises(InputError, match=r"a\.encodings: is no JSON"):
        read_encodings(tmp_path / "a.encodings")
    with pytest.raises(InputError, match=r"b\.encodings: No such file"):
        read_encodings(tmp_path / "b.encodings")


def test_two_files_that_say_how_tensors_are_coded_are_one_too_many(tmp_path: Path) -> None:
    read("1.0.0", tmp_path)
    (tmp_path / "network.calib.cache").write_text("TRT-8600-EntropyCalibration2\n")
    with pytest.raises(
        InputError, match=r"network\.encodings and network\.calib\.cache both say how its tensors are coded"
    ):
        graph_from_onnx(tmp_path / "network.onnx")


def entries(content: Any) -> dict[str, Any]:
    """All encodings of a file by the names of their tensors."""
    if content["version"] == "0.6.1":
        return {**content["activation_encodings"], **content["param_encodings"]}
    parts = ("encodings",) if content["version"] == "2.0.0" else ("activation_encodings", "param_encodings")
    return {entry["name"]: entry for part in parts for entry in content[part]}


@pytest.mark.parametrize("version", VERSIONS)
def test_what_we_write_of_aimets_network_is_what_aimet_wrote(version: str, tmp_path: Path) -> None:
    """Field by field, where a tensor keeps its name: the input and the weights."""
    quantized, _ = to_quantized(read(version, tmp_path))
    _, beside = export_as(quantized, tmp_path / "again.onnx", "encodings_json", version=version)
    ours, theirs = entries(json.loads(beside.read_text())), entries(content_of(version))
    names = {"image", "stem.weight", "depth.weight", "up.weight", "head.weight"}
    assert names <= ours.keys() & theirs.keys()
    for name in names:
        pairs = zip(ours[name], theirs[name], strict=True) if version == "0.6.1" else [(ours[name], theirs[name])]
        for mine, own in pairs:
            assert mine.keys() == own.keys(), name
            for key, value in own.items():
                # AIMET computes scales in float64 and on in float32.
                assert mine[key] == (value if isinstance(value, str | bool) else pytest.approx(value, rel=1e-6)), key
