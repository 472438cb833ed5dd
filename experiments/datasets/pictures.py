"""What the folder data sets share: finding pictures, reading them, and saying which one cannot be read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from bitwright.quant.errors import InputError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
Triple = tuple[float, float, float]
# Mean and standard deviation of ImageNet's training pictures, RGB in [0, 1]: what published weights expect.
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)


class FolderSettings(BaseModel):
    """What every folder of pictures can say.

    Attributes:
        root: the folder; a path that is not absolute starts where the command is run.
        calibration: how many pictures calibrate.
        choose: `spread` takes them evenly over the sorted paths, `first` takes the first ones.
        on_unreadable: what to do about a picture that cannot be read.
        mean: subtracted, RGB in [0, 1].
        std: divided by, after that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    root: str
    calibration: Annotated[int, Field(ge=1)] = 200
    choose: Literal["spread", "first"] = "spread"
    on_unreadable: Literal["fail", "skip"] = "fail"
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD

    @field_validator("root")
    @classmethod
    def _exists(cls, root: str) -> str:
        if not Path(root).is_dir():
            raise ValueError("no such folder")
        return root


def pictures_in(folder: Path) -> list[Path]:
    """Its pictures, in sorted order."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def chosen(count: int, settings: FolderSettings) -> list[int]:
    """Which of `count` sorted pictures calibrate."""
    wanted = min(settings.calibration, count)
    if settings.choose == "first":
        return list(range(wanted))
    return [index * count // wanted for index in range(wanted)]


def fingerprint(paths: Sequence[Path]) -> str:
    """Changes with the names, sizes and times of the files."""
    digest = hashlib.sha256()
    for path in paths:
        stat = path.stat()
        digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def open_picture(path: Path) -> Image:
    """Decodes a picture to RGB.

    Raises:
        InputError: it cannot be read.
    """
    from PIL import Image as pillow

    try:
        with pillow.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        raise InputError(
            f"{path}: not a readable picture ({error}); mend or remove it, or set data.on_unreadable: skip"
        ) from None


def normalized(image: Image, settings: FolderSettings) -> torch.Tensor:
    """An RGB picture as float32 [3, H, W], mean subtracted, divided by std."""
    import numpy as np
    import torch

    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255.0).permute(2, 0, 1)
    return (pixels - torch.tensor(settings.mean).view(3, 1, 1)) / torch.tensor(settings.std).view(3, 1, 1)


class PictureBatch(tuple[Any, ...]):
    """A batch of (pictures, labels) that knows the files of its rows."""

    paths: tuple[Path, ...]

    @classmethod
    def of(cls, parts: Iterable[Any], paths: Iterable[Path]) -> PictureBatch:
        """The batch."""
        batch = cls(parts)
        batch.paths = tuple(paths)
        return batch


class SampleBatches:
    """Stacks samples into batches, again and again; unreadable ones stop it or are noted, as the recipe says."""

    def __init__(
        self,
        samples: Sequence[tuple[Path, Any]],
        read: Callable[[Any], tuple[torch.Tensor, torch.Tensor]],
        batch: int,
        *,
        skip_unreadable: bool,
        notes: list[str],
    ) -> None:
        self.samples, self.read, self.batch = samples, read, batch
        self.skip_unreadable, self.notes = skip_unreadable, notes

    def __iter__(self) -> Iterator[PictureBatch]:
        import torch

        held: list[tuple[Path, tuple[torch.Tensor, torch.Tensor]]] = []

        def stacked() -> PictureBatch:
            parts = zip(*(read for _, read in held), strict=True)
            return PictureBatch.of(map(torch.stack, parts), (path for path, _ in held))

        for sample in self.samples:
            try:
                held.append((sample[0], self.read(sample)))
            except InputError as error:
                if not self.skip_unreadable:
                    raise
                note = f"skipped {str(error).split(';')[0]}"
                if note not in self.notes:
                    self.notes.append(note)
                continue
            if len(held) == self.batch:
                yield stacked()
                held = []
        if held:
            yield stacked()


def shuffled(samples: Sequence[Any], seed: int | None) -> list[Any]:
    """The samples in an order that the seed decides; in their own order without one."""
    import random

    order = list(samples)
    if seed is not None:
        random.Random(seed).shuffle(order)
    return order
