"""What the README shows works as it stands there."""

import re
import textwrap
from pathlib import Path

import pytest
import torch

from bitwright.experiments.load_recipe import load_recipe

README = Path(__file__).parents[2] / "README.md"


def test_the_recipe_is_valid(tmp_path: Path) -> None:
    block = re.search(r"    # recipe\.yaml\n((?:    .*\n|\n)+?)\n    bitwright", README.read_text(encoding="utf-8"))
    assert block is not None
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(textwrap.dedent(block.group(1)))
    assert load_recipe(str(recipe)).evaluate.metric == "minADE"
    assert load_recipe(str(recipe), ["target=h200", "calibrate.observer=mse"]).target == "h200"


def test_the_python_lines_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    block = re.search(r"```python\n(.+?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    monkeypatch.chdir(tmp_path)
    given = {
        "model": torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()),
        "example": torch.rand(1, 3, 8, 8),
        "calibration_batches": [torch.rand(4, 3, 8, 8) for _ in range(4)],
    }
    exec(block.group(1), given)
    assert capsys.readouterr().out == "no findings\n"
    assert (tmp_path / "model.onnx").is_file()


@pytest.mark.parametrize("name", re.findall(r"\]\((\w+\.md)\)", README.read_text(encoding="utf-8")))
def test_links_lead_somewhere(name: str) -> None:
    assert (README.parent / name).is_file()
