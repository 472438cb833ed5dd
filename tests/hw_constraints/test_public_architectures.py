"""Published networks of every family before accelerators of every kind, where the benchmarks' library is installed."""

from pathlib import Path

import pytest
import torch

from bitwright.experiments.benchmarks import architectures, places
from bitwright.experiments.benchmarks.peers.environments import LIBRARY
from bitwright.experiments.benchmarks.survey import has_real_line, survey
from bitwright.hw_constraints.finding import Finding, Severity
from bitwright.hw_constraints.target import load_target
from bitwright.quant.graph import SourceLine

TARGETS = ("x86-vnni", "tensorrt-orin", "edge-tpu", "ethos-u85-1024")
FEW = [each for each in architectures.ARCHITECTURES if each.name in architectures.FEW]


def test_there_are_enough_of_each_kind() -> None:
    assert len({each.name for each in architectures.ARCHITECTURES}) >= 60
    assert len(FEW) == len(architectures.FEW) == 15
    tasks = {each.task for each in architectures.ARCHITECTURES}
    assert tasks == {"classification", "segmentation", "video", "flow", "detection"}


@pytest.fixture(scope="module")
def library() -> Path:
    folder = places.peers_home() / LIBRARY
    if not (folder / "torchvision").is_dir() or not (folder / "timm").is_dir():
        pytest.skip("needs torchvision and timm: python -m bitwright.experiments.benchmarks.setup_peers")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("architecture", FEW, ids=lambda each: each.name)
def test_nothing_crashes_and_every_line_is_real(architecture: architectures.Architecture, library: Path) -> None:
    torch.set_num_threads(1)
    model, args = architectures.build(architecture, library)
    found = survey(model, args, [load_target(name) for name in TARGETS])
    assert found.crashes == ()
    assert found.without_line == ()
    assert found.refused == ()
    assert found.regions is not None
    assert found.regions.is_whole or found.regions.mac_share > 0.9
    assert found.lowered


def test_a_line_is_real_when_file_line_and_text_are(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text("import torch\n    y = self.conv(x)\n")

    def at(source: SourceLine | None) -> Finding:
        return Finding(
            rule="r", severity=Severity.ERROR, node="conv", found="", allowed="", suggestion="", source=source
        )

    assert has_real_line(at(SourceLine(str(file), 2, "y = self.conv(x)")))
    assert not has_real_line(at(SourceLine(str(file), 1, "y = self.conv(x)")))
    assert not has_real_line(at(SourceLine(str(file), 9, "y = self.conv(x)")))
    assert not has_real_line(at(SourceLine(str(tmp_path / "gone.py"), 2, "y = self.conv(x)")))
    assert not has_real_line(at(None))
