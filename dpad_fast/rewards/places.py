"""The places that a caption is compared with: the region that it describes, and the contrasts of this region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from PIL import Image

from dpad_fast.clip.images import MaskedPicture, Picture
from dpad_fast.clip.preprocess import PixelSource
from dpad_fast.clip.regions import EmptyRegion, Region, region_of
from dpad_fast.rewards.config import RewardConfig
from dpad_fast.rewards.geometry import check_box, target_mask
from dpad_fast.types import Size, Target

Place: TypeAlias = tuple[int, Region]
"""A picture's number in `PlaceFinder.pictures`, and a region of it."""


class CaptionRow(NamedTuple):
    """A row of the batch whose caption is to be compared.

    Attributes:
        position: its place in the batch.
        caption: the description.
        target: the ground truth.
        truth: the ground-truth box, in pixels of the ground truth's image.
        predicted: the answer's box in the same space, or None.
        picture: number of its picture.
    """

    position: int
    caption: str
    target: Target
    truth: Sequence[float] | None
    predicted: Sequence[float] | None
    picture: int


class Places(NamedTuple):
    """The regions of one row's comparison.

    Attributes:
        roi: the region that the caption describes.
        contrasts: the regions that it is contrasted with, at least one.
    """

    roi: Place
    contrasts: tuple[Place, ...]


class PlaceFinder:
    """Finds the places of a batch's rows as `config` says.

    Args:
        pictures: the batch's own.
        config: which region, and which contrast.

    Attributes:
        pictures: the batch's pictures, followed by those that were made from them by blanking.
    """

    def __init__(self, pictures: Sequence[Picture], config: RewardConfig) -> None:
        self.pictures: list[PixelSource] = list(pictures)
        self._sources, self._config = pictures, config
        self._masked: dict[object, int] = {}
        self._found: dict[object, Places | str] = {}

    def find(self, row: CaptionRow) -> Places | str:
        """The row's places, or a reason code where the answer gives none.

        Raises:
            ValueError: a box or mask of the target has no pixel or another size than its picture; names it.
        """
        # The rows of a group share both; what they predict differs.
        shared = None if self._config.region == "predicted" else (id(row.target), row.picture)
        found = None if shared is None else self._found.get(shared)
        if found is None:
            found = self._places(row)
            if shared is not None:
                self._found[shared] = found
        return found

    def _places(self, row: CaptionRow) -> Places | str:
        truth = self._truth(row)
        if isinstance(truth, str):
            return truth
        roi = truth[0]
        if self._config.region == "predicted":
            if row.predicted is None:
                return "bad-box"
            try:
                roi = region_of(row.predicted, self._sources[row.picture].size, row.target.image_size, clip=True)
            except EmptyRegion:
                return "empty-region"
        picture = self._background_removed(row) if self._config.region == "mask" else row.picture
        return Places((picture, roi), self._contrasts(row, roi))

    def _truth(self, row: CaptionRow) -> tuple[Region] | str:
        """The ground truth's region; or a reason code where the released code would score 0."""
        size = self._sources[row.picture].size
        lenient = self._config.answer == "released" and bool(row.target.text)
        try:
            if row.truth is not None:
                region = region_of(row.truth, size, row.target.image_size)
                if not lenient or not _beyond_pillow(region, size):
                    return (region,)
        except EmptyRegion:
            pass
        if lenient:
            return "no-truth"
        check_box(row.truth, f"targets[{row.position}].box")
        raise ValueError(f"targets[{row.position}].box has no area in whole pixels: {tuple(row.truth or ())}")

    def _contrasts(self, row: CaptionRow, roi: Region) -> tuple[Place, ...]:
        if self._config.contrast == "blanked":
            return ((self._blanked(row.picture, roi), None),)
        if self._config.contrast == "hardest" and row.target.other_boxes:
            return tuple((row.picture, self._other_region(row, i)) for i in range(len(row.target.other_boxes)))
        return ((row.picture, None),)

    def _other_region(self, row: CaptionRow, i: int) -> Region:
        box = row.target.other_boxes[i]
        try:
            return region_of(box, self._sources[row.picture].size, row.target.image_size)
        except EmptyRegion:
            raise ValueError(f"targets[{row.position}].other_boxes[{i}] has no area: {box}") from None

    def _blanked(self, number: int, roi: Region) -> int:
        source = self._sources[number]

        def make() -> MaskedPicture:
            width, height = source.size
            x1, y1, x2, y2 = roi or (0, 0, width, height)
            keep = torch.ones(height, width, dtype=torch.bool, device="cpu")
            keep[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = False
            return MaskedPicture(source, keep, ("blanked", roi))

        return self._derived((number, "blanked", roi), make)

    def _background_removed(self, row: CaptionRow) -> int:
        source = self._sources[row.picture]
        mask = target_mask(row.target, row.position)[0]
        size = (int(mask.shape[1]), int(mask.shape[0]))
        if size != source.size:
            raise ValueError(f"targets[{row.position}].mask is {size} but images[{row.position}] is {source.size}")
        if not bool(mask.any()):
            raise ValueError(f"targets[{row.position}].mask has no pixel")
        content = mask.numpy().tobytes()
        return self._derived((row.picture, "mask", content), lambda: MaskedPicture(source, mask, content))

    def _derived(self, key: object, make: Callable[[], MaskedPicture]) -> int:
        if key not in self._masked:
            self._masked[key] = len(self.pictures)
            self.pictures.append(make())
        return self._masked[key]


def _beyond_pillow(region: Region, size: Size) -> bool:
    """Whether `Image.crop` refuses the region for its size, which the released code scores as 0."""
    x1, y1, x2, y2 = region or (0, 0, *size)
    limit = Image.MAX_IMAGE_PIXELS
    return limit is not None and (x2 - x1) * (y2 - y1) > 2 * limit
