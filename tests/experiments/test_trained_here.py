"""The networks that recipes train on road scenes: their shapes, and their size against the paper's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bitwright.experiments.extensions import MODELS
from bitwright.experiments.load_recipe import load_recipe
from bitwright.quant.capture import capture


def build(kind: str, **settings: float) -> torch.nn.Module:
    model = MODELS.load(kind)
    return model.build(model.settings.model_validate(settings)).eval()


@pytest.mark.parametrize(("blocks", "million"), [(3, 0.27), (5, 0.46), (9, 0.85)])
def test_residual_networks_have_the_size_of_the_paper(blocks: int, million: float) -> None:
    # He et al. 2016, table 6, ResNet-20, -32 and -56; the projections that are here in place of padding add 0.003.
    parameters = sum(each.numel() for each in build("cifar_resnet", blocks=blocks).parameters())
    assert parameters / 1e6 == pytest.approx(million, abs=0.01)


def test_residual_networks_have_as_many_layers_as_their_name() -> None:
    layers = [each for each in build("cifar_resnet").modules() if isinstance(each, torch.nn.Conv2d | torch.nn.Linear)]
    projections = sum(each.kernel_size == (1, 1) for each in layers if isinstance(each, torch.nn.Conv2d))
    assert len(layers) - projections == 20 and projections == 2


@pytest.mark.parametrize(("kind", "size"), [("cifar_resnet", (32, 32)), ("mobile_segmenter", (32, 48))])
def test_they_are_captured_whole_and_alike(kind: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model, image = build(kind, classes=11), torch.randn(1, 3, *size)
    wanted = model(image)
    assert wanted.shape == ((1, 11) if kind == "cifar_resnet" else (1, 11, *size))
    found = capture(model, (image,)).run(image)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", ["camvid_patches", "camvid_segmentation"])
def test_their_recipes_take_the_folder_from_the_command_line(name: str, tmp_path: Path) -> None:
    assert load_recipe(name, [f"data.root={tmp_path}"]).data.settings["root"] == str(tmp_path)
