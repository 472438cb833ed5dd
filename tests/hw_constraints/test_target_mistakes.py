"""What a target file can get wrong about the machine, and the exact words in which that is said."""

import re
import textwrap
from pathlib import Path

import pytest

from bitwright.hw_constraints.target import Capability, load_target
from bitwright.quant.errors import InputError

MACHINE = """\
id: machine
version: 1
description: A small accelerator with everything that a cost model needs.
capabilities: [scheme, lint, lower, cost]
sources:
  manual: {title: Its manual}
artifact: {format: onnx_qdq, opset: 20, runtimes: [onnxruntime]}
engines:
  array:
    kind: mac_array
    runs: [convolution, matrix_product]
    reads: [sram]
    writes: [sram]
    macs: {value: 64 MAC/cycle, source: manual, verified: true}
    clock: {value: 1 GHz, source: manual, verified: true}
    array:
      dataflow: weight_stationary
      unroll: {in_channels: 8, out_channels: 8}
      source: manual
      verified: true
    elements:
      elementwise: {value: 8 elements/cycle, source: manual, verified: true}
memories:
  sram:
    kind: sram
    size: {value: 2 MiB, source: manual, verified: true}
    bandwidth: {value: 32 B/cycle, source: manual, verified: true}
    ports: {read: 1, write: 1, source: manual, verified: true}
    use: {holds: [activations, weights], double_buffered: true, source: manual, verified: true}
  dram:
    kind: dram
    bandwidth: {value: 8 GB/s, source: manual, verified: true}
links:
  dma: {start: dram, end: sram, both_ways: true, source: manual, verified: true}
layouts:
  NHWC: {default: true, source: manual, verified: true}
  NHWC16: {channel_multiple: {int8: 16}, alignment: 64, source: manual, verified: true}
reformats:
  pack: {start: NHWC, end: NHWC16, engine: array, source: manual, verified: true}
sparsity:
  "2:4": {formats: [int8], operators: [conv2d], source: manual, verified: true}
cost: {model: array}
numerics:
  activations: [{format: int8, symmetric: false}]
  weights: [{format: int8, symmetric: true}]
  bias: int32
  source: manual
  verified: true
operators: {quantized: [conv2d, add], others: refused, source: manual, verified: true}
shapes: {dynamic: none, source: manual, verified: true}
constraints:
  kernel:
    operators: [conv2d]
    require: kernel_h <= 32
    because: its window is 32 high
    suggestion: use a smaller kernel
    source: manual
    verified: true
"""
SECOND = """\
  {name}:
    operators: [conv2d, add]
    require: {require}
    because: so it is
    suggestion: do otherwise
    source: manual
    verified: true
"""


def written(folder: Path, text: str, name: str = "machine.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def line_of(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


def test_the_machine_is_read(tmp_path: Path) -> None:
    target = load_target(written(tmp_path, MACHINE))
    array, sram, dram = target.engines["array"], target.memories["sram"], target.memories["dram"]
    target.require(Capability.COST)
    assert array.macs_per_second("int8") == 64e9 and array.array is not None
    assert sram.bytes_per_second(array.clock_hz) == 32e9 and sram.bytes_per_second() is None
    assert dram.bytes_per_second() == 8e9 and dram.size_bytes is None and sram.size_bytes == 2 * 2**20
    assert sram.use is not None and sram.use.double_buffered and sram.ports is not None and sram.ports.write == 1
    assert target.default_layout is target.layouts["NHWC"]
    assert target.layouts["NHWC16"].padded_channels(17, "int8") == 32
    assert target.layouts["NHWC16"].padded_channels(17, "int16") == 17
    assert [str(each) for each in target.sparsity] == ["2:4"] and not target.unverified()


@pytest.mark.parametrize(
    ("old", "new", "at", "message"),
    [
        # names
        (
            "    kind: sram\n",
            "    kind: sramm\n",
            "kind: sramm",
            "memories.sram.kind = 'sramm'; accepts registers, sram, cache, dram (did you mean 'sram'?)",
        ),
        (
            "weight_stationary",
            "weight",
            "dataflow",
            "engines.array.array.dataflow = 'weight'; accepts weight_stationary",
        ),
        ("runs: [convolution,", "runs: [conv,", "runs: [conv,", "engines.array.runs[0] = 'conv'; accepts convolution,"),
        (
            "holds: [activations,",
            "holds: [inputs,",
            "holds",
            "memories.sram.use.holds[0] = 'inputs'; accepts activations,",
        ),
        ("model: array", "model: scale_sim", "model:", "cost.model = 'scale_sim'; accepts roofline, array, ethos_u"),
        ("elementwise: {", "elementwis: {", "elementwis:", "no such kind of work (convolution, depthwise,"),
        ("{int8: 16}", "{int17: 16}", "int17", "accepts int2, uint2,"),
        ('"2:4"', '"4:2"', '"4:2"', "expected how many of how many neighbours are kept, such as 2:4"),
        (
            "bandwidth: {value: 32",
            "bandwith: {value: 32",
            "bandwith",
            "memories.sram.bandwith: no such key (did you mean"
            " 'bandwidth'?); allowed: kind, size, bandwidth, operand_bandwidth,",
        ),
        # numbers
        (
            "alignment: 64",
            "alignment: 0",
            "alignment",
            "layouts.NHWC16.alignment = 0; expected greater than or equal to 1",
        ),
        (
            "alignment: 64",
            "alignment: 64 B",
            "alignment",
            "layouts.NHWC16.alignment = '64 B'; expected a valid integer",
        ),
        (
            "{int8: 16}",
            "{int8: 0}",
            "int8: 0",
            "layouts.NHWC16.channel_multiple.int8 = 0; expected greater than or equal",
        ),
        (
            "out_channels: 8",
            "out_channels: 0",
            "unroll",
            "unroll.out_channels = 0; expected greater than or equal to 1",
        ),
        (
            "out_channels: 8",
            "out_channel: 8",
            "unroll",
            "accepts batch, groups, out_channels, in_channels, out_y, out_x, out_pixels",
        ),
        ("out_channels: 8", "out_channels: 4", "array:", "array.unroll multiplies to 32, macs says 64 MAC/cycle"),
        (
            "out_channels: 8}",
            "out_channels: 8, out_x: 1, out_pixels: 1}",
            "unroll",
            "out_pixels are out_y and out_x as one loop; name either",
        ),
        ("2 MiB", "0 MiB", "0 MiB", "memories.sram.size.value = '0 MiB'; must be greater than 0"),
        (
            "2 MiB",
            "2 Mib",
            "2 Mib",
            "memories.sram.size.value = '2 Mib'; unit 'Mib' is none of B, kB, MB, GB, TB, KiB,",
        ),
        (
            "2 MiB",
            "2",
            "size: {value: 2,",
            "memories.sram.size.value = 2; the unit is missing; write for example '2 B'",
        ),
        (
            "32 B/cycle",
            "32 GHz",
            "32 GHz",
            "unit 'GHz' is none of B/s, kB/s, MB/s, GB/s, TB/s, KiB/s, MiB/s, GiB/s, TiB/s, B/cycle, bit/cycle",
        ),
        ("8 elements/cycle", "8 MAC/cycle", "8 MAC/cycle", "unit 'MAC/cycle' is none of elements/cycle"),
        ("read: 1, write: 1", "read: 1", "ports", "a memory has a port to read by and one to write by"),
        # what refers to what
        (
            "reads: [sram]",
            "reads: [srem]",
            "srem",
            "engines.array.reads[0] = 'srem'; no such memory, there are: sram, dram (did you mean 'sram'?)",
        ),
        ("start: dram", "start: hbm", "hbm", "links.dma.start = 'hbm'; no such memory, there are: sram, dram"),
        ("end: NHWC16", "end: NC4HW", "NC4HW", "reformats.pack.end = 'NC4HW'; no such layout, there are: NHWC, NHWC16"),
        ("engine: array", "engine: dsp", "dsp", "reformats.pack.engine = 'dsp'; no such engine, there are: array"),
        (
            "alignment: 64,",
            "alignment: 64, default: true,",
            "NHWC16: {",
            "layouts.NHWC16.default = True; NHWC is the default already",
        ),
        (
            "  dma: {start: dram, end: sram",
            "  dma: {start: sram, end: sram",
            "  dram:",
            "memories.dram: no engine reaches it; name it in an engine's reads or writes, or in a link",
        ),
        # what the capabilities need
        (
            "    clock: {value: 1 GHz, source: manual, verified: true}\n",
            "",
            "capabilities",
            "capabilities has cost, but engines.array.clock is missing; give the figure, or drop cost and say under "
            "missing.cost what is not public",
        ),
        (
            "    bandwidth: {value: 8 GB/s, source: manual, verified: true}\n",
            "",
            "capabilities",
            "capabilities has cost, but memories.dram.bandwidth is missing",
        ),
        (
            "    size: {value: 2 MiB, source: manual, verified: true}\n",
            "",
            "capabilities",
            "memories.sram.size is missing",
        ),
        ("cost: {model: array}\n", "", "capabilities", "capabilities has cost, but cost.model is missing"),
        (
            "cost: {model: array}",
            "cost: {model: array, figures: {launch: {value: 3 us, source: manual, verified: true}}}",
            "launch",
            "cost.figures.launch: the array model has no such figure; allowed: none",
        ),
        (
            "cost: {model: array}",
            "cost: {model: roofline, figures: {launch: {value: 3 B, source: manual, verified: true}}}",
            "launch",
            "cost.figures.launch = 3 B; it is the time to start one kernel, in s",
        ),
        (
            "sources:\n",
            "missing: {cost: nothing}\nsources:\n",
            "missing:",
            "missing.cost: capabilities has cost, too; drop one of them",
        ),
        # contradictions
        (
            "kernel_h <= 32",
            "kernel_h > 32 and kernel_h < 3",
            "kernel_h >",
            "constraints.kernel.require = 'kernel_h > 32 and kernel_h < 3'; no call of any operator meets it",
        ),
    ],
)
def test_mistakes_are_named_with_file_and_line(tmp_path: Path, old: str, new: str, at: str, message: str) -> None:
    assert MACHINE.count(old) >= 1
    text = MACHINE.replace(old, new, 1)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        load_target(written(tmp_path, text))
    assert f"machine.yaml:{line_of(text, at)}: " in str(caught.value)


def test_two_constraints_that_allow_nothing_together(tmp_path: Path) -> None:
    text = MACHINE + SECOND.format(name="wide", require="channels % 4 == 0")
    assert len(load_target(written(tmp_path, text)).constraints) == 2
    text = text.replace("[conv2d, add]\n    require: channels % 4 == 0", "[conv2d]\n    require: kernel_h > 40")
    message = (
        f"machine.yaml:{line_of(text, 'kernel_h > 40')}: constraints.wide.require = 'kernel_h > 40'; no conv2d meets "
        "it and constraints.kernel.require = 'kernel_h <= 32'"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        load_target(written(tmp_path, text))


def test_three_constraints_that_allow_nothing_together(tmp_path: Path) -> None:
    text = MACHINE.replace("require: kernel_h <= 32", "require: rank < 4 or channels < 4")
    text += SECOND.format(name="wide", require="channels >= 4 or batch >= 4")
    text += SECOND.format(name="deep", require="rank >= 4 and batch < 4")
    with pytest.raises(InputError, match=r"no conv2d meets all of kernel, wide, deep"):
        load_target(written(tmp_path, text))


def test_what_one_constraint_allows_on_another_operator_is_no_contradiction(tmp_path: Path) -> None:
    text = MACHINE.replace("quantized: [conv2d, add]", "quantized: [conv2d, max_pool2d]")
    text += SECOND.format(name="pool", require="kernel_h > 40").replace("[conv2d, add]", "[max_pool2d]")
    assert len(load_target(written(tmp_path, text)).constraints) == 2


def test_an_id_that_is_taken(tmp_path: Path) -> None:
    path = written(tmp_path, MACHINE.replace("id: machine", "id: h200"))
    with pytest.raises(
        InputError, match=r"machine\.yaml:1: id = 'h200'; there is a target of that name already, choose"
    ):
        load_target(path)


def test_null_takes_away_what_the_parent_has(tmp_path: Path) -> None:
    written(tmp_path, MACHINE)
    child = """
    id: child
    version: 1
    description: A sister without a limit on kernels.
    extends: machine.yaml
    capabilities: [scheme, lint]
    missing: {cost: its clock is not public}
    engines:
      array: {clock: null}
    constraints: {kernel: null}
    """
    target = load_target(written(tmp_path, textwrap.dedent(child), "child.yaml"))
    assert not target.constraints and target.engines["array"].clock_hz is None
    assert target.engines["array"].macs_per_cycle == 64
    with pytest.raises(InputError, match=r"target 'child' does not serve cost: its clock is not public; its file says"):
        target.require(Capability.COST)


def test_a_text_is_not_computed_with(tmp_path: Path) -> None:
    for text in ("dtype * 9999999999 == 'x'", "'%99999999d' % kernel_h == 'x'", "(1, 2) * 99999999 == kernel_h"):
        with pytest.raises(InputError, match=r"cannot be decided: .* is no number"):
            load_target(written(tmp_path, MACHINE.replace("kernel_h <= 32", f'"{text}"')))


def test_a_pattern_that_stands_for_too_many_chains(tmp_path: Path) -> None:
    many = " -> ".join(["conv2d|conv1d|conv3d|linear|relu|add|mul|sub|div|exp"] * 4)
    text = MACHINE.replace("others: refused", f"fused_patterns: [{many}], others: refused")
    with pytest.raises(InputError, match=r"fused_patterns\[0\] = .*; stands for more than 1000 chains; write several"):
        load_target(written(tmp_path, text))


def test_an_observers_own_arguments_are_its_own(tmp_path: Path) -> None:
    text = MACHINE.replace("symmetric: false}", "symmetric: false, observer_arguments: {source: [1, 2]}}")
    specs = load_target(written(tmp_path, text)).numerics.activations
    assert specs[0].observer_arguments == {"source": [1, 2]}


def test_a_file_that_is_far_too_large(tmp_path: Path) -> None:
    path = written(tmp_path, MACHINE + "#" * 300_000)
    with pytest.raises(InputError, match=r"machine\.yaml: \d+ bytes; a target file has at most 262144"):
        load_target(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[a, b]", r"extends = \['a', 'b'\]; expected the name of a target or the path of its file"),
        ("3", r"extends = 3; expected the name of a target"),
        ("h20", r"extends: unknown target 'h20'; there are: .* \(did you mean 'h200'\?\)"),
        ("none.yaml", r"extends: none\.yaml: no such target file"),
        ("machine.yaml", r"extends = 'machine\.yaml'; it is circular \(machine -> machine\)"),
    ],
)
def test_what_cannot_be_extended(tmp_path: Path, value: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"machine\.yaml:1: {message}"):
        load_target(written(tmp_path, f"extends: {value}\n{MACHINE}"))
