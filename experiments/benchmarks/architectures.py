"""Public architectures with seeded random weights: torchvision's and timm's, from classification to segmentation.

Both come without their dependencies; the operators that torchvision's compiled half would bring are written here in
PyTorch, so that detectors run.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bitwright.experiments.benchmarks.peers.workers.networks import torchvision_models

_SEED = 0
_implementations: list[Any] = []  # a torch.library.Library takes its kernels with it when it is collected


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A published network.

    Attributes:
        name: in its library.
        library: torchvision or timm.
        task: classification, segmentation, detection, video or flow.
        size: the picture's height and width.
    """

    name: str
    library: str
    task: str
    size: int


def _of(library: str, task: str, size: int, names: str) -> tuple[Architecture, ...]:
    return tuple(Architecture(name=name, library=library, task=task, size=size) for name in names.split())


CONVOLUTIONAL = (
    *_of(
        "torchvision",
        "classification",
        96,
        """alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 mnasnet0_5
        mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18 resnet50
        resnext50_32x4d shufflenet_v2_x1_0 squeezenet1_1 vgg11_bn wide_resnet50_2""",
    ),
    *_of(
        "timm",
        "classification",
        96,
        """convnextv2_atto cspresnet50 dla34 ese_vovnet19b_dw fbnetc_100 ghostnet_100 inception_next_atto lcnet_050
        mixnet_s mobilenetv4_conv_small mobileone_s0 regnety_002 repvgg_a0 res2net50_14w_8s rexnet_100 skresnet18
        starnet_s1 tinynet_a""",
    ),
)
TRANSFORMERS = (
    *_of("torchvision", "classification", 224, "maxvit_t swin_t swin_v2_t vit_b_32"),
    *_of(
        "timm",
        "classification",
        224,
        """cait_xxs24_224 convit_tiny davit_tiny deit_tiny_patch16_224 edgenext_xx_small efficientformer_l1
        efficientvit_b0 eva02_tiny_patch14_224 gcvit_xxtiny gmlp_ti16_224 hiera_tiny_224 levit_128s mixer_s32_224
        mobilevit_xxs pit_ti_224 poolformer_s12 pvt_v2_b0 tiny_vit_5m_224 xcit_nano_12_p16_224""",
    ),
)
DENSE = (
    *_of("torchvision", "segmentation", 96, "deeplabv3_mobilenet_v3_large fcn_resnet50 lraspp_mobilenet_v3_large"),
    *_of("torchvision", "video", 64, "r3d_18"),
    *_of("torchvision", "flow", 128, "raft_small"),
    *_of(
        "torchvision",
        "detection",
        256,
        "fasterrcnn_mobilenet_v3_large_320_fpn fcos_resnet50_fpn retinanet_resnet50_fpn ssdlite320_mobilenet_v3_large",
    ),
)
ARCHITECTURES = (*CONVOLUTIONAL, *TRANSFORMERS, *DENSE)
# Of each family and each task something: what a test can look at in minutes.
FEW = (
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "resnet18",
    "shufflenet_v2_x1_0",
    "ghostnet_100",
    "repvgg_a0",
    "swin_t",
    "deit_tiny_patch16_224",
    "mobilevit_xxs",
    "lraspp_mobilenet_v3_large",
    "r3d_18",
    "ssdlite320_mobilenet_v3_large",
)


def build(architecture: Architecture, library: Path) -> tuple[torch.nn.Module, tuple[Any, ...]]:
    """The network in eval mode and example arguments of one run.

    Args:
        architecture: which one.
        library: the folder with torchvision and timm.
    """
    models = torchvision_models(str(library))
    _implement_operators()
    torch.manual_seed(_SEED)
    if architecture.library == "timm":
        model = _timm(library).create_model(architecture.name, pretrained=False)
    else:
        model = models.get_model(architecture.name, weights=None, **_settings(architecture))
    model.eval().requires_grad_(False)
    return model, _arguments(architecture)


def _timm(library: Path) -> Any:
    assert str(library) in sys.path  # torchvision_models has put it there
    import timm

    return timm


def _settings(architecture: Architecture) -> dict[str, Any]:
    if architecture.name in ("googlenet", "inception_v3"):
        return {"init_weights": False}  # theirs takes half a minute
    if architecture.task == "segmentation":
        return {"weights_backbone": None}
    if architecture.task == "detection":
        sizes = {"min_size": architecture.size, "max_size": architecture.size}
        return {"weights_backbone": None} | ({} if architecture.name.startswith("ssd") else sizes)
    return {}


def _arguments(architecture: Architecture) -> tuple[Any, ...]:
    size = architecture.size
    picture = torch.randn(1, 3, size, size)
    match architecture.task:
        case "video":
            return (torch.randn(1, 3, 8, size, size),)
        case "flow":
            return (picture, torch.randn(1, 3, size, size))
        case "detection":
            return ([torch.rand(3, size, size)],)
    return (picture,)


def _implement_operators() -> None:
    """Non-maximum suppression and RoI pooling for processors, and torchvision told that it has operators."""
    if _implementations:
        return
    import torchvision
    from torchvision.ops.roi_align import _roi_align

    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    library.define(
        "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
        "int sampling_ratio, bool aligned) -> Tensor"
    )
    library.impl("roi_align", _roi_align, "CPU")
    library.impl("nms", _nms, "CPU")
    torchvision.extension._has_ops = lambda: True
    _implementations.append(library)


def _nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Indices of the boxes that no better box overlaps by more than the threshold, best first."""
    from torchvision.ops.boxes import box_iou

    left = scores.argsort(descending=True)
    keep = []
    while len(left):
        keep.append(left[0])
        overlap = box_iou(boxes[left[:1]], boxes[left[1:]])[0]
        left = left[1:][overlap <= iou_threshold]
    return torch.stack(keep) if keep else left
