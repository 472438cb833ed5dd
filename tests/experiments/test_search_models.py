"""Networks that searches are about: MobileNetV2 with published names, and parts of a user's own network."""

import json

import pytest
import torch

from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.models import elastic_part, mobilenet_v2
from bitwright.experiments.recipe import ModelSection
from bitwright.experiments.workbench import Workbench, build_model
from bitwright.nas import costs
from bitwright.nas.elastic import inherit
from bitwright.nas.space import Candidate
from bitwright.nas.spaces import load_space
from bitwright.quant.capture import capture
from bitwright.quant.errors import InputError


def test_mobilenet_v2_has_the_size_and_the_names_of_the_published_one() -> None:
    model = mobilenet_v2.build(mobilenet_v2.Settings()).eval()
    assert sum(each.numel() for each in model.parameters()) == 3_504_872  # torchvision's MobileNet_V2_Weights
    # Sandler et al. 2018, table 4: 300 M multiply-adds at 224 pixels.
    assert costs.macs(capture(model, (torch.zeros(1, 3, 224, 224),)).graph) == pytest.approx(300e6, rel=0.01)
    names = set(model.state_dict())
    for name in ("features.0.0.weight", "features.1.conv.1.weight", "features.2.conv.0.1.running_mean",
                 "features.17.conv.3.bias", "features.18.1.weight", "classifier.1.weight"):  # fmt: skip
        assert name in names
    assert len(names) == 314


WHOLE = {"kind": "digits_mobilenet", "width": 0.5, "depth": 2}
SPACE = {"width": [0.5, 1.0], "network_stages": 2, "multiple": 4}


def test_a_part_is_what_the_search_had_of_the_whole() -> None:
    kind = load_space("elastic")
    assert kind.of_model is not None
    torch.manual_seed(3)
    whole = build_model(ModelSection(**WHOLE))
    example = (torch.rand(1, 3, 32, 32),)
    elastic = kind.of_model(kind.settings.model_validate(SPACE), whole, example)
    least = {each.name: each.choices[0] for each in elastic.space.parameters}
    wanted = inherit(elastic, Candidate(elastic.space.canonical(least))).eval()
    section = {"whole": WHOLE, "space": SPACE, "choices": least, "inputs": [[1, 3, 32, 32]]}
    recipe = load_recipe("digits_search", ["seed=3", f"model={json.dumps({'kind': 'elastic_part', **section})}"])
    part = Workbench(recipe).new_model()
    assert sum(p.numel() for p in part.parameters()) < 0.6 * sum(p.numel() for p in whole.parameters())
    torch.testing.assert_close(part(*example), wanted(*example), rtol=0, atol=0)


def test_a_choice_that_the_whole_does_not_have_is_refused() -> None:
    settings = elastic_part.Settings(whole=WHOLE, space=SPACE, choices={"depth": 9}, inputs=((1, 3, 32, 32),))
    with pytest.raises(InputError, match="search space: depth cannot be varied; there are: "):
        elastic_part.build(settings)
