"""Reports of other tools joined with the file's layers; `reports/README.md` says which are recorded."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from bitwright.experiments import cli
from bitwright.hw_constraints.backends.tensorrt_layers import split_name
from bitwright.hw_constraints.proof import State, format_table, prove, prove_from
from bitwright.hw_constraints.proof.file_names import FileNames
from bitwright.hw_constraints.proof.onnx_graph import OnnxGraph
from bitwright.hw_constraints.proof.tools.base import get_tool
from bitwright.hw_constraints.target import load_target
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError
from bitwright.quant.export.onnx_qdq import export_onnx_qdq
from bitwright.quant.ptq import quantize

REPORTS = Path(__file__).parent / "reports"
VARIANTS = {"sound": {}, "branch in float": {"quantize_branch": False}, "sum in float": {"quantize_sum": False}}


def files(tool, *names):
    return [REPORTS / tool / name for name in names]


def states(report):
    return {layer.name: str(layer.state) for layer in report.layers}


# --- recorded from the real tools ---


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("with_model", [True, False])
def test_a_profile_of_onnxruntime_says_what_proving_here_says(block, saved, tmp_path, image, variant, with_model):
    """The profile of the file itself, made by its own session, against `prove`, which renames every node."""
    path = saved(block(**VARIANTS[variant]))
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "trace")
    options.optimized_model_filepath, options.intra_op_num_threads = str(tmp_path / "optimised.onnx"), 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    for _ in range(3):
        session.run(None, {"image": image})
    reports = [Path(session.end_profiling()), *([tmp_path / "optimised.onnx"] if with_model else [])]
    here = prove(path, "onnxruntime", inputs={"image": image})
    elsewhere = prove_from(path, reports)
    assert states(elsewhere) == states(here)
    assert elsewhere.int8_mac_share == here.int8_mac_share
    assert elsewhere.unjoined == () and elsewhere.machine is None
    assert elsewhere.total_us <= elsewhere.wall_us


def test_counters_of_openvino_say_what_proving_here_says(block, saved, tmp_path):
    pytest.importorskip("openvino")
    path = saved(block())
    here = prove(path, "openvino")
    for names in (("counters.csv", "execution.xml"), ("execution.xml",)):
        elsewhere = prove_from(path, files("openvino", *names))
        assert states(elsewhere) == states(here)
        assert elsewhere.unjoined == ()
    by_name = states(prove_from(path, files("openvino", "counters.json")))
    assert by_name == states(here)


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_execution_graph_of_openvino_says_what_proving_here_says(block, saved, tmp_path, image, variant):
    """The graph that benchmark_app would write, of the file itself, against `prove`, which renames every node."""
    openvino = pytest.importorskip("openvino")
    path = saved(block(**VARIANTS[variant]))
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": "YES"}
    compiled = openvino.Core().compile_model(str(path), "CPU", options)
    compiled.create_infer_request().infer({"image": image})
    openvino.serialize(compiled.get_runtime_model(), str(tmp_path / "execution.xml"), str(tmp_path / "execution.bin"))
    elsewhere = prove_from(path, [tmp_path / "execution.xml"])
    assert states(elsewhere) == states(prove(path, "openvino", inputs={"image": image}))
    assert elsewhere.unjoined == ()


def test_the_printed_command_makes_the_report_that_is_read(block, saved):
    """`--how openvino` as it stands, in a shell; the last of its lines is ours."""
    tool = Path(sys.executable).with_name("benchmark_app")
    if not tool.exists():
        pytest.skip("benchmark_app is not installed: it comes with openvino")
    path = saved(block())
    command, ours = get_tool("openvino").how(path).splitlines()
    places = f"{tool.parent}:/usr/bin:/bin"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, env={"PATH": places})
    assert done.returncode == 0, done.stdout[-500:]
    assert ours.startswith("bitwright prove ")
    report = prove_from(path, [Path(each) for each in ours.split(" --from ")[1:]])
    assert states(report) == states(prove(path, "openvino"))


def test_openvinos_times_are_its_counters(block, saved):
    """12 µs in the last line of the table, in whole microseconds: half of one may hide in each kernel."""
    report = prove_from(saved(block()), files("openvino", "counters.csv", "execution.xml"))
    assert report.total_us == pytest.approx(12)
    assert {layer.name: layer.time_us for layer in report.layers}["gemm36/n"] == pytest.approx(7)
    assert re.search(r"whole microseconds: of 12 µs in \d+ kernels up to \d+ µs are rounding", report.notes[-1])


class Small(nn.Module):
    """The network that `reports/vela` was recorded of."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.project = nn.Conv2d(16, 16, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        y = self.stem(x)
        y = y + self.project(self.depthwise(y))
        return self.head(self.pool(y).flatten(1))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    torch.manual_seed(0)
    x = torch.randn(1, 8, 16, 16)
    quantized = quantize(capture(Small().eval(), (x,)), load_target("ethos-u65-512").scheme(), [(x,)])
    return export_onnx_qdq(quantized, tmp_path_factory.mktemp("vela") / "small.onnx")


def test_velas_estimate_is_joined_with_the_users_modules(small):
    summary = "network_summary_Ethos_U65_Client_Server.csv"
    report = prove_from(small, files("vela", "network_per-layer.csv", summary))
    # 8,505 cycles at 1 GHz: the summary's inference time.
    assert report.total_us == pytest.approx(report.wall_us) == pytest.approx(8.505)
    assert (report.origin, report.device, report.unjoined) == ("modelled", "Ethos_U65_512", ())
    by_ref = {layer.ref: layer for layer in report.layers}
    # The compiler writes the activation's tensor; the layer is the convolution that it was fused into.
    assert by_ref["stem.0@0.0.0"].time_us == pytest.approx(2.238)
    assert by_ref["stem.2@0.0.0"].folded_into == "stem.0@0.0.0"
    assert by_ref["depthwise@0.0.0"].time_us == pytest.approx(1.632)
    assert report.int8_mac_share == 1
    assert "modelled time: 100% int8" in report.summary()


def test_velas_cycles_without_the_summary_are_said_to_be_cycles(small):
    report = prove_from(small, files("vela", "network_per-layer.csv"))
    assert report.total_us == pytest.approx(8505)
    assert "times are cycles" in report.notes[1]


# --- written after the documentation ---


def test_tensorrts_layers_with_their_times(block, saved):
    report = prove_from(saved(block()), files("tensorrt", "layers.json", "profile.json"))
    layers = {layer.op + layer.name[-4:-2]: layer for layer in report.layers}
    assert layers["Conv10"].state is State.FLOAT and layers["Conv10"].precision == "float16"
    assert str(layers["Conv10"].reason) == "TensorRT ran it in float16, though the file has uint8 x int8 x int32"
    assert layers["Conv10"].time_us == pytest.approx(8.3)
    assert layers["Add19"].folded_into == "conv16/n"
    # A Myelin region is opaque: its kernels' formats are not in the layer info.
    assert layers["Gemm36"].state is State.UNKNOWN
    assert report.total_us == pytest.approx(45.0)
    assert report.conversion_time_share == pytest.approx((4.1 + 3.6) / 45.0)
    assert "17.4%" in format_table(report)


def test_tensorrts_profile_alone_has_times_and_no_formats(block, saved):
    report = prove_from(saved(block()), files("tensorrt", "profile.json"))
    assert {layer.state for layer in report.layers if layer.is_weighted} == {State.UNKNOWN}
    assert report.conversion_time_share == pytest.approx((4.1 + 3.6) / 45.0)
    assert report.notes == ("the profile alone does not say formats: give the file of --exportLayerInfo as well",)
    assert not report.is_fully_low_precision


def test_tensorrts_layer_info_alone_has_formats_and_no_times(block, saved):
    report = prove_from(saved(block()), files("tensorrt", "layers.json"))
    assert report.total_us == report.conversion_time_share == 0
    assert report.summary().endswith("; no times in the report")


def test_qnns_cycles_become_microseconds_by_the_whole(block, saved):
    """Runs of 5,000 operator cycles in 25,000 cycles in 25 µs; the median leaves the slow first one out."""
    report = prove_from(saved(block()), files("qnn", "profile.csv", "net.json"))
    assert report.wall_us == pytest.approx(25)
    assert report.total_us == pytest.approx(5)
    by_name = {layer.name: layer for layer in report.layers}
    assert (by_name["conv10/n"].precision, by_name["conv10/n"].time_us) == ("float16", pytest.approx(1.5))
    assert by_name["conv4/n"].state is State.INT8


def test_qnns_profile_alone_does_not_say_formats(block, saved):
    report = prove_from(saved(block()), files("qnn", "profile.csv"))
    assert {layer.state for layer in report.layers if layer.is_weighted} == {State.UNKNOWN}
    assert "100.0% not stated" in report.summary()


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("w + QuantizeLinear_7 + Conv_9 + PWN(Clip_13)", ("w", "QuantizeLinear_7", "Conv_9", "Clip_13")),
        ("PWN(PWN(/act/Sigmoid), /act/Mul)", ("/act/Sigmoid", "/act/Mul")),
        ("Reformatting CopyNode for Input Tensor 0 to Conv_0 + PWN(Clip_3)", ("Conv_0", "Clip_3")),
        ("{ForeignNode[/head/Constant.../Concat_1]}", ("/head/Constant", "/Concat_1")),
    ],
)
def test_names_of_tensorrt_come_apart(name, parts):
    assert split_name(name) == parts


# --- names ---


def test_names_with_what_tools_add_are_known_and_others_are_not(block):
    graph = OnnxGraph(block(), "block")
    names = FileNames(graph)
    node = next(index for index, node in enumerate(graph.nodes) if node.name == "conv4/n")
    for name in ("conv4/n", "conv4", "conv4/n/WithoutBiases", "fused conv4/n", "node_of_conv4", "conv4/n_quant"):
        assert names.positions([name]) == (node,), name
    for name in ("conv4/n:OpId_7", "conv4/n_token_12", "conv4/n_clone_1"):
        assert names.positions([name]) == (node,), name
    for name in ("conv4/n_1", "conv44", "conv", "/conv4/n", "conv4_1"):
        assert names.positions([name]) == (), name


# --- what cannot be ---


def other_network(path):
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = f"other/{node.name}"
        node.input[:] = [f"o{name}" if name else "" for name in node.input]
        node.output[:] = [f"o{name}" for name in node.output]
    for item in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        item.name = f"o{item.name}"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("tool", "names"),
    [
        ("tensorrt", ("layers.json", "profile.json")),
        ("openvino", ("counters.csv", "execution.xml")),
        ("onnxruntime", ("profile.json",)),
        ("qnn", ("profile.csv", "net.json")),
        ("vela", ("network_per-layer.csv",)),
    ],
)
def test_a_report_of_another_network_is_refused(block, saved, tool, names):
    path = other_network(saved(block()))
    with pytest.raises(InputError, match=rf"of another network than {path}: \d+ of its \d+ layers are none of that"):
        prove_from(path, files(tool, *names))


@pytest.mark.parametrize(
    ("tool", "names"),
    [("tensorrt", ("layers.json",)), ("openvino", ("execution.xml",)), ("onnxruntime", ("profile.json",))],
)
def test_a_report_at_another_input_size_is_refused(block, saved, tool, names):
    model = block()
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, 16, 24, 24), strict=True):
        dim.dim_value = size
    with pytest.raises(
        InputError, match=r"at another input size: '.*' writes \[1, (48, 12, 12|12, 12, 48)\], in the file"
    ):
        prove_from(saved(model), files(tool, *names))


@pytest.mark.parametrize(
    ("reports", "message"),
    [
        ([], "--from: give the files that the tool wrote"),
        ([REPORTS / "none.json"], "none.json: no such file"),
        (files("tensorrt", "layers.json") * 2, "both are the layer info; give one of each"),
        (
            [*files("tensorrt", "layers.json"), *files("qnn", "net.json")],
            "(layers|net).json: is no report of (QNN|TensorRT), as .*(net|layers).json is",
        ),
        (files("vela", "network_summary_Ethos_U65_Client_Server.csv"), "the summary has no layers"),
        (files("qnn", "net.json"), "the converter's graph has no times"),
        (files("onnxruntime", "optimised.onnx"), "an optimised model alone says no times"),
        ([REPORTS / "README.md"], "is no report of .*TensorRT \\(tensorrt\\).*`bitwright prove FILE --how TOOL`"),
    ],
)
def test_what_is_no_report_is_one_message(block, saved, reports, message):
    with pytest.raises(InputError, match=message) as caught:
        prove_from(saved(block()), reports)
    assert "\n" not in str(caught.value)


def test_names_only_layer_info_says_the_option(block, saved, tmp_path):
    (tmp_path / "names.json").write_text(json.dumps({"Layers": ["conv4/n"], "Bindings": []}))
    with pytest.raises(InputError, match=r"holds layer names only; .*--profilingVerbosity=detailed"):
        prove_from(saved(block()), [tmp_path / "names.json"])


@pytest.mark.parametrize(
    ("file", "lines", "message"),
    [
        ("openvino/counters.csv", 12, r"counters.csv: does not end with a line 'Total'; it may be cut off"),
        (
            "vela/network_per-layer.csv",
            4,
            r"network_per-layer.csv: its layers take 46 % of the cycles; it may be cut off",
        ),
    ],
)
def test_a_table_that_ends_too_early_is_refused_even_at_the_end_of_a_line(block, saved, tmp_path, file, lines, message):
    cut = tmp_path / Path(file).name
    cut.write_text("\n".join((REPORTS / file).read_text().splitlines()[:lines]) + "\n")
    with pytest.raises(InputError, match=message):
        prove_from(saved(block()), [cut])


def test_layer_info_and_profile_of_two_engines_are_refused(block, saved, tmp_path):
    profile = json.loads((REPORTS / "tensorrt" / "profile.json").read_text())
    for entry in profile[1:]:
        entry["name"] = f"x{entry['name']}"
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    with pytest.raises(InputError, match=r"7 of its 7 layers are not in .*layers.json.*export both from one engine"):
        prove_from(saved(block()), [*files("tensorrt", "layers.json"), tmp_path / "profile.json"])


def test_kernels_that_belong_to_no_layer_are_listed_and_counted(block, saved, tmp_path):
    whole = json.loads((REPORTS / "tensorrt" / "layers.json").read_text())
    whole["Layers"].append({**whole["Layers"][1], "Name": "plugin", "Metadata": "[ONNX Layer: mine]", "Outputs": []})
    profile = json.loads((REPORTS / "tensorrt" / "profile.json").read_text())
    profile.append({"name": "plugin", "medianMs": 0.045, "averageMs": 0.045})
    for name, value in (("layers.json", whole), ("profile.json", profile)):
        (tmp_path / name).write_text(json.dumps(value))
    report = prove_from(saved(block()), [tmp_path / "layers.json", tmp_path / "profile.json"])
    assert [kernel.name for kernel in report.unjoined] == ["plugin"]
    assert "1 of the report's kernels (50.0% of the time) belong to no layer of the file: plugin" in report.warnings
    assert report.conversion_time_share == pytest.approx((4.1 + 3.6) / 90.0)


def test_a_provider_that_compiles_whole_regions_is_opaque(block, saved, tmp_path):
    """One node for everything between two that stay on the CPU: known by its name, its layers not in the profile."""
    events = json.loads((REPORTS / "onnxruntime" / "profile.json").read_text())
    provider = "QNNExecutionProvider"
    kernels = [event for event in events if event.get("name", "").endswith("_kernel_time")]
    for event in [each for each in kernels if each["name"] != "quantizelinear0/n_kernel_time"]:
        events.remove(event)
    region = {**kernels[1], "name": f"{provider}_QNN_123_1_0_kernel_time", "dur": 900}
    region["args"] = {**region["args"], "provider": provider, "op_name": f"{provider}_QNN_123_1_0", "node_index": "77"}
    (tmp_path / "profile.json").write_text(json.dumps([*events, region]))
    report = prove_from(saved(block()), [tmp_path / "profile.json"])
    assert {layer.state for layer in report.layers if layer.is_weighted} == {State.UNKNOWN}
    assert [kernel.name for kernel in report.unjoined] == [f"{provider}_QNN_123_1_0"]
    assert "1 kernels run whole regions of the network" in report.notes[1]


def test_kernels_that_take_no_time_are_not_missed(block, saved, tmp_path):
    profile = json.loads((REPORTS / "tensorrt" / "profile.json").read_text())
    profile.append({"name": "(Unnamed Layer* 108) [Shuffle]", "medianMs": 0, "averageMs": 0})
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    assert prove_from(saved(block()), [tmp_path / "profile.json"]).unjoined == ()


def test_the_command_line_proves_from_a_report_and_says_how(block, saved):
    path = saved(block())

    def bitwright(*arguments):
        return CliRunner().invoke(cli.build_app(), ["prove", str(path), *map(str, arguments)])

    table = bitwright("--from", *files("tensorrt", "layers.json"), "--from", *files("tensorrt", "profile.json"))
    assert table.exit_code == 1 and "TensorRT ran it in float16" in table.stdout
    printed = bitwright("--from", *files("qnn", "profile.csv"), "--json")
    assert json.loads(printed.stdout)[0]["layers"][0]["state"] == "unknown"
    assert "--exportLayerInfo=" in bitwright("--how", "tensorrt").stdout
    for wrong, message in (
        (("--how", "tensort"), "unknown tool 'tensort'; there are: .*did you mean 'tensorrt'"),
        (("--runtime", "onnxruntime", "--from", path), "--from reads what ran elsewhere: give one"),
        (("--from", path), "is no report of|has none|an optimised model alone"),
    ):
        refused = bitwright(*wrong)
        assert refused.exit_code == 2 and re.search(message, refused.stderr), refused.stderr
        assert len(refused.stderr.splitlines()) == 1 and np.all([refused.stdout == ""])
