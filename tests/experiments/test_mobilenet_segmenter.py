"""MobileNetV2 with decoders: what the dilation keeps of the encoder, and what comes out."""

import pytest
import torch

from bitwright.experiments.models import mobilenet_v2, mobilenet_v2_segmenter
from bitwright.experiments.models.mobilenet_v2_segmenter import Settings


@pytest.mark.parametrize("decoder", ["lr_aspp", "deeplab_v3_plus"])
def test_each_pixel_gets_logits_and_the_encoder_has_the_published_names(decoder: str) -> None:
    model = mobilenet_v2_segmenter.build(Settings(width=0.25, decoder=decoder, classes=5)).eval()
    published = mobilenet_v2.build(mobilenet_v2.Settings(width=0.25)).state_dict()
    encoder = {name: each.shape for name, each in model.state_dict().items() if name.startswith("features.")}
    assert encoder == {
        name: each.shape for name, each in published.items() if name.startswith("features.") and ".18." not in name
    }
    with torch.no_grad():
        assert model(torch.rand(2, 3, 32, 48)).shape == (2, 5, 32, 48)


def test_dilation_computes_at_every_second_place_what_the_halving_computed() -> None:
    torch.manual_seed(0)
    plain = mobilenet_v2.build(mobilenet_v2.Settings(width=0.25)).eval()
    dilated = mobilenet_v2_segmenter.build(Settings(width=0.25)).eval()
    dilated.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        x = torch.rand(1, 3, 64, 64)
        coarse = plain.get_submodule("features")[:18](x)
        fine = dilated.get_submodule("features")(x)
    # The first block behind the halving sees the same pixels; its place (0, 0) is place (0, 0) of the finer result.
    assert fine.shape[-2:] == (4, 4)
    torch.testing.assert_close(fine[..., ::2, ::2], coarse)
