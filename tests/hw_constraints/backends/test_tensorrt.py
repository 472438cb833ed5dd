"""TensorRT without a device: the inspector's JSON, how engines are set up, what is refused.

The package cannot be imported without CUDA's libraries, so `FakeTensorRT` takes its place where it is only told what to
do. That an engine builds, runs and is profiled is up to the contract suite on a machine that has a device.
"""

import json
from types import SimpleNamespace

import pytest

from bitwright.hw_constraints.backends import get_backend
from bitwright.hw_constraints.backends.onnxruntime_tensorrt import provider_options
from bitwright.hw_constraints.backends.tensorrt import kernel_times, torch_dtype
from bitwright.hw_constraints.backends.tensorrt_build import batch_of_one, build_plan, configure, new_logger
from bitwright.hw_constraints.backends.tensorrt_layers import (
    executed_node,
    precision_of_layer,
    read_layers,
    split_name,
)
from bitwright.quant.errors import InputError, MissingExtraError

# The example of TensorRT's Developer Guide, "Engine Inspector", shortened.
CONVOLUTION = {
    "Name": "node_of_gpu_0/res4_0_branch2a_1 + node_of_gpu_0/res4_0_branch2a_bn_1",
    "LayerType": "CaskConvolution",
    "Inputs": [
        {
            "Name": "gpu_0/res3_3_branch2c_bn_3",
            "Dimensions": [16, 512, 28, 28],
            "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format.",
        }
    ],
    "Outputs": [{"Name": "gpu_0/res4_0_branch2a_bn_2", "Dimensions": [16, 256, 28, 28], "Format/Datatype": "Int8"}],
    "TacticName": "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32",
}


def layer(kind, *formats, **more):
    inputs = [{"Name": f"i{place}", "Dimensions": shape, **types} for place, (shape, types) in enumerate(formats)]
    return {"Name": "layer", "LayerType": kind, "Inputs": inputs, **more}


def test_an_engines_layers_are_read():
    (read,) = read_layers(json.dumps({"Layers": [CONVOLUTION], "Bindings": []}))
    node = executed_node(read)
    assert (node.op, node.inputs, node.outputs) == (
        "CaskConvolution",
        ("gpu_0/res3_3_branch2c_bn_3",),
        ("gpu_0/res4_0_branch2a_bn_2",),
    )
    assert node.originals == ("node_of_gpu_0/res4_0_branch2a_1", "node_of_gpu_0/res4_0_branch2a_bn_1")
    assert precision_of_layer(read) == "int8"


def test_metadata_names_the_nodes_where_it_is_there():
    metadata = "[ONNX Layer: bw3wb]\x1f[ONNX Layer: bw4wb]"
    assert executed_node(layer("kgen", Metadata=metadata)).originals == ("bw3wb", "bw4wb")


@pytest.mark.parametrize(
    ("described", "precision"),
    [
        (layer("CaskGemmConvolution", ([1, 8], {"DataType": "FP8", "Format": "Row major linear"})), "fp8"),  # 11.x
        (layer("CaskConvolution", ([1, 8], {"DataType": "BFloat16", "Format": "Row major linear"})), "bfloat16"),
        (layer("PointWiseV2", ([4], {"Format/Datatype": "Int8"}), ([4, 8], {"Format/Datatype": "Half"})), "float16"),
        (layer("Shuffle", ([4], {"Format/Datatype": "Int64"})), "other"),
        (layer("Myelin", ([4], {"Format/Datatype": "Int8"})), None),
        (layer("Constant"), None),
    ],
)
def test_precision_is_what_is_multiplied_else_the_largest_operand(described, precision):
    assert precision_of_layer(described) == precision


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("w + Conv_9 + PWN(Clip_13)", ("w", "Conv_9", "Clip_13")),
        ("{ForeignNode[a...b]}", ("a", "b")),
        ("Reformatting CopyNode for Input Tensor 0 to Conv_9", ("Conv_9",)),
    ],
)
def test_names_of_fused_layers_come_apart(name, parts):
    assert split_name(name) == parts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not JSON", "no 'Layers' in it"),
        ('{"Bindings": []}', "no 'Layers' in it"),
        ('{"Layers": ["conv"]}', "holds layer names only; build it with detailed profiling verbosity"),
        ('{"Layers": [{"LayerType": "kgen"}]}', "an entry of 'Layers' has no 'Name'"),
    ],
)
def test_what_an_inspector_does_not_write(text, message):
    with pytest.raises(InputError, match=message):
        read_layers(text)


def test_kernels_are_medians_behind_the_first_run():
    runs = [[("conv", 900.0), ("copy", 50.0)], *([("conv", time), ("copy", 5.0)] for time in (10.0, 30.0, 20.0))]
    conv, copy = kernel_times(runs, [{**CONVOLUTION, "Name": "conv"}])
    assert (conv.time_us, conv.precision, conv.op) == (20.0, "int8", "CaskConvolution")
    assert conv.provider == f"CUDA {CONVOLUTION['TacticName']}"
    assert (copy.time_us, copy.precision) == (5.0, "other")


class FakeTensorRT:
    """Takes down what it is told."""

    class ILogger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

        def __init__(self):
            pass

    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    ProfilingVerbosity = SimpleNamespace(DETAILED="detailed")
    BuilderFlag = SimpleNamespace(TF32="TF32")

    def __init__(self, inputs=(), *, errors=(), accepts_cache=True, builds=True):
        self.inputs, self.errors, self.accepts_cache, self.builds = inputs, errors, accepts_cache, builds
        self.told = []

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self.told.append((name, *args))
            return self

        return call

    num_errors = property(lambda self: len(self.errors))
    num_inputs = property(lambda self: len(self.inputs))

    def get_error(self, index):
        desc, node, op = self.errors[index]
        return SimpleNamespace(desc=lambda: desc, node_name=lambda: node, node_operator=lambda: op)

    def get_input(self, index):
        return self.inputs[index]

    def parse(self, content):
        return not self.errors

    def create_timing_cache(self, content):
        return content

    def set_timing_cache(self, cache, ignore_mismatch):
        assert not ignore_mismatch
        self.told.append(("set_timing_cache", cache))
        return self.accepts_cache or not cache

    def serialize(self):
        return b"timed"

    def build_serialized_network(self, network, config):
        return b"plan" if self.builds else None


def test_an_engine_is_strongly_typed_exact_detailed_and_remembers_tactics(tmp_path):
    fake = FakeTensorRT()
    cache = tmp_path / "timing"
    assert build_plan(fake, new_logger(fake), b"model", "a.onnx", cache) == b"plan"
    assert ("create_network", 1 << 1) in fake.told
    assert ("clear_flag", "TF32") in fake.told
    assert fake.profiling_verbosity == "detailed"
    assert cache.read_bytes() == b"timed"
    build_plan(fake, new_logger(fake), b"model", "a.onnx", cache)
    assert ("set_timing_cache", b"timed") in fake.told


def test_a_timing_cache_that_does_not_match_is_replaced():
    fake = FakeTensorRT(accepts_cache=False)
    configure(fake, fake, fake, fake, b"of another device")
    assert [told for told in fake.told if told[0] == "set_timing_cache"] == [
        ("set_timing_cache", b"of another device"),
        ("set_timing_cache", b""),
    ]


def test_an_open_batch_is_one():
    fake = FakeTensorRT([SimpleNamespace(name="x", shape=(-1, 3, 8, 8)), SimpleNamespace(name="y", shape=(2, 2))])
    configure(fake, fake, fake, fake, b"")
    shape = (1, 3, 8, 8)
    assert ("set_shape", "x", shape, shape, shape) in fake.told
    with pytest.raises(InputError, match=r"input 'x' has the open shape \(1, -1\); give a file whose shapes are fixed"):
        batch_of_one("x", (1, -1))


def test_a_refused_model_says_which_node(tmp_path):
    fake = FakeTensorRT(errors=[("No importer registered for op: Foo", "features.3", "Foo")])
    message = r"a\.onnx: tensorrt cannot load it: No importer registered for op: Foo \(node 'features\.3', Foo\)"
    with pytest.raises(InputError, match=message):
        build_plan(fake, new_logger(fake), b"model", "a.onnx", tmp_path / "timing")


def test_a_failed_build_says_what_was_logged(tmp_path):
    fake = FakeTensorRT(builds=False)
    logger = new_logger(fake)
    logger.log(fake.ILogger.Severity.ERROR, "Could not find any implementation\nfor node conv")
    logger.log(fake.ILogger.Severity.WARNING, "slow")
    with pytest.raises(InputError, match="cannot build it: Could not find any implementation for node conv"):
        build_plan(fake, logger, b"model", "a.onnx", tmp_path / "timing")


def test_element_types():
    assert torch_dtype("HALF") == "float16"
    with pytest.raises(InputError, match="a result is FP8, which the host cannot read"):
        torch_dtype("FP8")


def test_without_the_package_its_install_line_is_said(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    backend = get_backend("tensorrt")
    assert backend.available() == "package tensorrt is not installed"
    with pytest.raises(MissingExtraError, match=r"pip install 'bitwright\[tensorrt\]'"):
        backend.load(b"")


def test_the_providers_options_are_strings_that_it_knows(tmp_path):
    options = provider_options(tmp_path, int8=True)
    assert set(map(type, options.values())) == {str}
    assert options["trt_int8_enable"] == "True"
    assert options["trt_timing_cache_path"] == options["trt_engine_cache_path"] == str(tmp_path)
