"""What kind of file an artefact is, and who reads it."""

import pytest

from bitwright.hw_constraints.backends import get_backend, list_backends
from bitwright.hw_constraints.backends.artifacts import KINDS, artifact_kind, check_kind, readers
from bitwright.quant.errors import InputError


def test_content_counts_more_than_the_name(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x1c\x00\x00\x00TFL3 and so on")
    assert artifact_kind(path).name == "tflite"
    assert artifact_kind(b"\x30\x00\x00\x00ET12eh00").name == "pte"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_name_tells_where_content_does_not(kind, tmp_path):
    for suffix in (*kind.suffixes, kind.suffixes[0].upper()):
        path = tmp_path / f"model{suffix}"
        path.write_bytes(b"")
        assert artifact_kind(path) == kind


def test_what_tells_nothing_is_left_to_the_runtime(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(b"whatever")
    assert artifact_kind(path) is None
    check_kind(path, get_backend("onnxruntime"))
    check_kind(b"", get_backend("litert"))


def test_the_message_says_who_reads_what(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"")
    message = (
        r"model\.tflite: is a LiteRT model; onnxruntime reads an ONNX model or a model in ONNX Runtime's own format; "
        r"a LiteRT model is read by litert, openvino"
    )
    with pytest.raises(InputError, match=message):
        check_kind(path, get_backend("onnxruntime"))
    with pytest.raises(InputError, match=r"none\.tflite: no such file"):
        check_kind(tmp_path / "none.tflite", get_backend("onnxruntime"))


def test_every_runtime_reads_kinds_that_there_are():
    names = {kind.name for kind in KINDS}
    for name in list_backends():
        assert get_backend(name).reads
        assert set(get_backend(name).reads) <= names
        assert name in readers(get_backend(name).reads[0])
