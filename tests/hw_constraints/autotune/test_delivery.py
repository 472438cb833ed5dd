"""What belongs to an artefact goes with it: weights beside an ONNX file, OpenVINO's, our own provenance."""

import re

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitwright.hw_constraints.autotune.delivery import deliver, digest, weights_beside
from bitwright.hw_constraints.autotune.final import check_others
from bitwright.quant.errors import InputError


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("tuned.onnx", "tuned.provenance.json", "tuned.onnx.data", "tries.jsonl"):
        (folder / name).write_text("earlier")
    return folder


def theirs(folder, places):
    """A model that adds constants to `x`, each stored at its place, or inside the model where that is empty."""
    folder.mkdir()
    nodes, constants, value = [], [], "x"
    for number, place in enumerate(places):
        constant = numpy_helper.from_array(np.full(300, 10.0**number, np.float32), f"w{number}")
        if place:
            (folder / place).parent.mkdir(exist_ok=True)
            with (folder / place).open("ab") as stream:
                onnx.external_data_helper.set_external_data(constant, place, offset=stream.tell(), length=1200)
                stream.write(constant.raw_data)
            constant.ClearField("raw_data")
        constants.append(constant)
        nodes.append(helper.make_node("Add", [value, f"w{number}"], [f"y{number}"]))
        value = f"y{number}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (300,)) for name in ("x", value)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    (folder / "theirs.onnx").write_bytes(model.SerializeToString())
    return folder / "theirs.onnx"


@pytest.mark.parametrize(
    ("places", "names"),
    [
        ([""], []),
        (["theirs.onnx.data"], ["tuned.onnx.data"]),
        (["tries.jsonl", "", "weights/a.bin", "tries.jsonl"], ["tuned.onnx.data", "tuned.onnx.1.data"]),
    ],
    ids=["inside", "beside", "in several files, one called like ours"],
)
def test_weights_of_an_onnx_file_go_with_it(tmp_path, out, places, names):
    source = theirs(tmp_path / "theirs", places)
    file = deliver(source, out / "tuned.onnx")
    assert sorted(path.name for path in out.iterdir()) == sorted(["tries.jsonl", "tuned.onnx", *names])
    assert (out / "tries.jsonl").read_text() == "earlier"
    source.parent.rename(tmp_path / "gone")
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (sums,) = session.run(None, {"x": np.zeros(300, np.float32)})
    np.testing.assert_array_equal(sums, sum(10.0**number for number in range(len(places))))


@pytest.mark.parametrize(("source", "beside"), [("theirs.xml", "theirs.bin"), ("theirs.tflite", None)])
def test_other_artefacts_and_what_lies_beside_them(tmp_path, out, source, beside):
    (tmp_path / "theirs.provenance.json").write_text("of theirs.onnx")
    names = [name for name in (source, beside) if name]
    for name in names:
        (tmp_path / name).write_text(name)
    file = deliver(tmp_path / source, out / "tuned.onnx")
    there = {path.name: path.read_text() for path in out.iterdir()}
    assert there == {"tries.jsonl": "earlier", **{f"tuned.{name.partition('.')[2]}": name for name in names}}
    assert file.name == f"tuned.{source.partition('.')[2]}"


def test_our_own_provenance_goes_with_it(tmp_path, out):
    source = theirs(tmp_path / "theirs", [""])
    source.with_suffix(".provenance.json").write_text("lines")
    assert deliver(source, out / "tuned.onnx").read_bytes() == source.read_bytes()
    assert (out / "tuned.provenance.json").read_text() == "lines"


def test_the_digest_is_of_the_weights_as_well(tmp_path):
    source = theirs(tmp_path / "theirs", ["w.data"])
    before = digest(source)
    assert digest(source) == before
    with (source.parent / "w.data").open("r+b") as stream:
        stream.seek(100)
        stream.write(b"other")
    assert digest(source) != before


def test_weights_that_are_not_there_are_refused_before_anything_is_tried(tmp_path):
    source = theirs(tmp_path / "theirs", ["w.data"])
    (source.parent / "w.data").unlink()
    message = (
        f"{source}: initializer 'w0': external data at 'w.data': no such file in {source.parent}; "
        "copy it beside the model"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        check_others({"theirs": source})
    source.write_bytes(b"hello, world")
    with pytest.raises(
        InputError, match=rf"^{re.escape(str(source))}: not an ONNX model, or a truncated one; export it"
    ):
        weights_beside(source)
