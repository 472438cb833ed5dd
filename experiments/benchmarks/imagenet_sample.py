"""The accuracy protocol: 1,000 ImageNet photographs, the first 200 calibrate, the other 800 are scored.

Paths are sorted; the class of a picture is the position of its folder (a WordNet id) among the sorted folders.
Preprocessing is torchvision's for MobileNetV2: short side 256, centre crop 224, ImageNet mean and deviation.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from bitwright.quant.errors import InputError

CALIBRATION_IMAGES = 200
SHORT_SIDE = 256
CROP = 224
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)

Images = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ImagenetSample:
    """The pictures under `root/val/WNID/`, preprocessed once into `cache`.

    Attributes:
        root: the folder that the user names.
        cache: where the arrays are kept between runs.
    """

    root: Path
    cache: Path

    @cached_property
    def paths(self) -> list[Path]:
        """Every picture, sorted.

        Raises:
            InputError: the folder holds fewer pictures than calibration needs.
        """
        found = sorted((self.root / "val").glob("*/*.jpg"))
        if len(found) <= CALIBRATION_IMAGES:
            raise InputError(
                f"data.root = {str(self.root)!r}: {len(found)} pictures match val/*/*.jpg; "
                f"the protocol calibrates with {CALIBRATION_IMAGES} and scores the rest"
            )
        return found

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """The class of each scored picture, [scored]."""
        classes = sorted({path.parent.name for path in self.paths})
        return np.array([classes.index(path.parent.name) for path in self.paths[CALIBRATION_IMAGES:]])

    @cached_property
    def digest(self) -> str:
        """Names this set of pictures: of their names and sizes."""
        listing = "\n".join(f"{path.parent.name}/{path.name} {path.stat().st_size}" for path in self.paths)
        return hashlib.sha256(listing.encode()).hexdigest()[:12]

    @property
    def calibration_file(self) -> Path:
        """The calibration images as .npy: float32 [200, 3, 224, 224]."""
        return self._array("calibrate", self.paths[:CALIBRATION_IMAGES])

    @property
    def scored_file(self) -> Path:
        """The scored images as .npy: float32 [800, 3, 224, 224]."""
        return self._array("scored", self.paths[CALIBRATION_IMAGES:])

    def _array(self, name: str, paths: list[Path]) -> Path:
        file = self.cache / f"{self.digest}-{name}.npy"
        if not file.exists():
            self.cache.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(".partial.npy")
            images = np.lib.format.open_memmap(partial, "w+", np.float32, (len(paths), 3, CROP, CROP))
            for index, path in enumerate(paths):
                images[index] = preprocess(Image.open(path))
            images.flush()
            partial.rename(file)
        return file


def preprocess(picture: Image.Image) -> Images:
    """A picture of any size as float32 [3, 224, 224], normalised."""
    picture = picture.convert("RGB")
    short = min(picture.size)
    if short != SHORT_SIDE:
        width, height = (round(side * SHORT_SIDE / short) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (round((side - CROP) / 2) for side in picture.size)
    cropped = picture.crop((left, top, left + CROP, top + CROP))
    pixels = np.asarray(cropped, np.float32) / np.float32(255)
    return np.ascontiguousarray(((pixels - MEAN) / DEVIATION).transpose(2, 0, 1))
