"""The discriminative term: does the caption fit its region better than what the region is contrasted with?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from PIL import Image

from dpad_fast.ops.discriminative_reward import discriminative_reward, reward_of
from dpad_fast.rewards.config import RewardConfig
from dpad_fast.rewards.geometry import check_box, target_mask
from dpad_fast.rewards.images import MaskedPicture, Picture
from dpad_fast.rewards.row_errors import RowErrors
from dpad_fast.types import Size, Target

if TYPE_CHECKING:
    from dpad_fast.clip.encoder import ClipEncoder
    from dpad_fast.clip.preprocess import Region
    from dpad_fast.clip.tokens import Ids

Place = tuple[int, "Region"]


@dataclass
class Job:
    """One completion that has a caption to compare.

    Attributes:
        index: its place in the batch, for messages.
        caption: the description.
        target: the ground truth.
        truth: the ground-truth box, in pixels of the ground truth's image.
        predicted: the answer's box in the same space, or None.
        picture: number of its picture in `Comparison.pictures`.
        windows: token ids of the caption's windows; filled by `Comparison`.
        roi: the region; filled by `Comparison`.
        contrasts: what it is contrasted with; filled by `Comparison`.
    """

    index: int
    caption: str
    target: Target
    truth: Sequence[float] | None
    predicted: Sequence[float] | None
    picture: int
    windows: list[Ids] = field(default_factory=list)
    roi: Place = (0, None)
    contrasts: list[Place] = field(default_factory=list)


class Comparison:
    """Scores the captions of a batch with one pass over texts and one over images."""

    def __init__(
        self, pictures: Sequence[Picture], config: RewardConfig, encoder: ClipEncoder, errors: RowErrors | None = None
    ) -> None:
        self.pictures: list[Picture | MaskedPicture] = list(pictures)
        self._sources = list(pictures)
        self._masked: dict[object, int] = {}
        self.config, self.encoder = config, encoder
        self._errors = errors or RowErrors()

    def run(self, jobs: list[Job], timings: dict[str, float]) -> dict[int, tuple[float, float, float] | str]:
        """Per job's index (reward, S1, S2), or the reason code why there is nothing to compare."""
        results: dict[int, tuple[float, float, float] | str] = {}
        began = time.perf_counter()
        unique = list(dict.fromkeys(job.caption for job in jobs))
        ids = dict(zip(unique, self.encoder.tokens.encode(unique), strict=True))
        began = _add(timings, "text", began)
        ready = []
        for job in jobs:
            try:
                reason = self._prepare(job, ids[job.caption])
            except ValueError as error:
                self._errors.add(job.index, error)
                continue
            if reason is None:
                ready.append(job)
            else:
                results[job.index] = reason
        _add(timings, "geometry", began)
        while ready:
            try:
                s1, s2 = self._compare(ready, timings)
            except ValueError as error:
                ready = self._readable(ready, error)
                continue
            reward = apply_shape(s1, s2, self.config)
            for job, *numbers in zip(ready, reward.tolist(), s1.tolist(), s2.tolist(), strict=True):
                results[job.index] = (numbers[0], numbers[1], numbers[2])
            break
        return results

    def _compare(self, jobs: list[Job], timings: dict[str, float]) -> tuple[torch.Tensor, torch.Tensor]:
        """S1 and S2, float32 [J], as the encoder's precision says."""
        exact = self.encoder.precision == "float32"
        s1, s2 = self._similarities(jobs, exact_text=exact, exact_image=exact, timings=timings)
        if self.encoder.precision == "guarded":
            self._guard(jobs, s1, s2, timings)
        return s1, s2

    def _readable(self, jobs: list[Job], error: ValueError) -> list[Job]:
        """The jobs without those whose picture broke while it was decoded; raises the error again if none did."""
        if not self._errors.kept:
            raise error
        broken: dict[int, ValueError] = {}
        for place in dict.fromkeys(job.picture for job in jobs):
            try:
                self._sources[place].pixels()
            except ValueError as found:
                broken[place] = found
        if not broken:
            raise error
        for job in jobs:
            if job.picture in broken:
                self._errors.add(job.index, broken[job.picture])
        return [job for job in jobs if job.picture not in broken]

    def _guard(self, jobs: list[Job], s1: torch.Tensor, s2: torch.Tensor, timings: dict[str, float]) -> None:
        """Embeds again in float32 what may be decided otherwise: captions first, which are cheap, then pictures."""
        encoder = self.encoder
        encoder.compared += len(jobs)
        near = self._near(s1, s2, encoder.margin)
        encoder.recomputed += near.numel()
        for exact_image in (False, True):
            if exact_image:
                near = near[self._near(s1[near], s2[near], encoder.image_margin)]
            if near.numel():
                again = [jobs[i] for i in near.tolist()]
                s1[near], s2[near] = self._similarities(
                    again, exact_text=True, exact_image=exact_image, timings=timings
                )

    def _near(self, s1: torch.Tensor, s2: torch.Tensor, margin: float) -> torch.Tensor:
        distance = s1 - self.config.tau if self.config.shape == "roi-threshold" else s1 - s2
        return torch.nonzero(distance.abs() <= margin).flatten()

    def _prepare(self, job: Job, ids: Ids | str) -> str | None:
        if isinstance(ids, str):
            return ids
        tokens = self.encoder.tokens
        if tokens.fits(ids):
            job.windows = [ids]
        elif self.config.long_caption == "zero":
            return "too-long"
        else:
            job.windows = [tokens.truncate(ids)] if self.config.long_caption == "truncate" else tokens.windows(ids)
        return self._place(job)

    def _place(self, job: Job) -> str | None:
        """Finds the job's regions; a reason code where there is none."""
        source = self._sources[job.picture]
        lenient = self.config.answer == "released" and bool(job.target.text)
        truth = None
        if job.truth is not None:
            truth = region_of(job.truth, source.size, job.target.image_size)
        if lenient and truth is not None and _beyond_pillow(truth):
            truth = None
        if truth is None:
            if lenient:
                return "no-truth"
            check_box(job.truth, f"targets[{job.index}].box")
            raise ValueError(f"targets[{job.index}].box has no area in whole pixels: {tuple(job.truth or ())}")
        if self.config.region == "predicted":
            if job.predicted is None:
                return "bad-box"
            roi = region_of(job.predicted, source.size, job.target.image_size, clip=True)
            if roi is None:
                return "empty-region"
        else:
            roi = truth
        if self.config.region == "mask":
            job.roi = (self._background_removed(job), whole_or(roi, source.size))
        else:
            job.roi = (job.picture, whole_or(roi, source.size))
        job.contrasts = self._contrasts(job, roi)
        return None

    def _contrasts(self, job: Job, roi: tuple[int, int, int, int]) -> list[Place]:
        source = self._sources[job.picture]
        if self.config.contrast == "blanked":
            return [(self._blanked(job.picture, roi), None)]
        if self.config.contrast == "hardest" and job.target.other_boxes:
            places = []
            for i, box in enumerate(job.target.other_boxes):
                other = region_of(box, source.size, job.target.image_size)
                if other is None:
                    raise ValueError(f"targets[{job.index}].other_boxes[{i}] has no area: {box}")
                places.append((job.picture, whole_or(other, source.size)))
            return places
        return [(job.picture, None)]

    def _blanked(self, picture: int, roi: tuple[int, int, int, int]) -> int:
        def make() -> MaskedPicture:
            width, height = self._sources[picture].size
            keep = torch.ones(height, width, dtype=torch.bool, device="cpu")
            x1, y1, x2, y2 = roi
            keep[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = False
            return MaskedPicture(self._sources[picture], keep, ("blanked", roi))

        return self._derived((picture, "blanked", roi), make)

    def _background_removed(self, job: Job) -> int:
        source = self._sources[job.picture]
        mask = target_mask(job.target, job.index)[0]
        if (int(mask.shape[1]), int(mask.shape[0])) != source.size:
            size = (int(mask.shape[1]), int(mask.shape[0]))
            raise ValueError(f"targets[{job.index}].mask is {size} but images[{job.index}] is {source.size}")
        if not bool(mask.any()):
            raise ValueError(f"targets[{job.index}].mask has no pixel")
        content = mask.numpy().tobytes()

        def make() -> MaskedPicture:
            return MaskedPicture(source, mask, content)

        return self._derived((job.picture, "mask", content), make)

    def _derived(self, key: object, make: Callable[[], MaskedPicture]) -> int:
        if key not in self._masked:
            self._masked[key] = len(self.pictures)
            self.pictures.append(make())
        return self._masked[key]

    def _similarities(
        self, jobs: Sequence[Job], *, exact_text: bool, exact_image: bool, timings: dict[str, float]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """S1 and S2, float32 [J]: means over a caption's windows, S2 the largest over its contrasts."""
        texts = list(dict.fromkeys(window for job in jobs for window in job.windows))
        pairs = list(dict.fromkeys((job.roi, other) for job in jobs for other in job.contrasts))
        places = list(dict.fromkeys(place for pair in pairs for place in pair))
        text = self.encoder.embed_ids(texts, exact=exact_text, timings=timings)
        image = self.encoder.embed_regions(self.pictures, places, exact=exact_image, timings=timings)
        began = time.perf_counter()
        at_text = {window: i for i, window in enumerate(texts)}
        at_place = {place: i for i, place in enumerate(places)}
        at_pair = {pair: i for i, pair in enumerate(pairs)}
        rows = [(w, (job.roi, other)) for job in jobs for other in job.contrasts for w in job.windows]
        _, first, second = discriminative_reward(
            text[[at_text[window] for window, _ in rows]],
            image[[at_place[roi] for roi, _ in pairs]],
            image[[at_place[other] for _, other in pairs]],
            torch.tensor([at_pair[pair] for _, pair in rows], device="cpu"),
            shape="margin",
        )
        if len(rows) != len(jobs):
            first, second = _gather(jobs, first, second)
        _add(timings, "combine", began)
        return first, second


def _add(timings: dict[str, float], stage: str, began: float) -> float:
    now = time.perf_counter()
    timings[stage] = timings.get(stage, 0.0) + now - began
    return now


def _gather(jobs: Sequence[Job], first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    s1, s2 = [], []
    start = 0
    for job in jobs:
        count = len(job.windows) * len(job.contrasts)
        shape = (len(job.contrasts), len(job.windows))
        s1.append(first[start : start + count].view(shape).mean(dim=1)[0])
        s2.append(second[start : start + count].view(shape).mean(dim=1).max())
        start += count
    return torch.stack(s1), torch.stack(s2)


def apply_shape(s1: torch.Tensor, s2: torch.Tensor, config: RewardConfig) -> torch.Tensor:
    """The discriminative term from S1 and S2, elementwise; formulas in docs/rewards.md."""
    return reward_of(s1, s2, shape=config.shape, alpha=config.alpha, tau=config.tau)


def region_of(
    box: Sequence[float], size: Size, space: Size | None, *, clip: bool = False
) -> tuple[int, int, int, int] | None:
    """A box in whole pixels of an image, rounded as `Image.crop` does; None where nothing is left.

    Args:
        box: (x1, y1, x2, y2) in pixels of an image of size `space`.
        size: (width, height) of the image at hand.
        space: (width, height) of the image that the box belongs to; None: the image at hand.
        clip: cut the box to the image.
    """
    scale = (1.0, 1.0) if space is None or space == size else (size[0] / space[0], size[1] / space[1])
    try:
        x1, y1, x2, y2 = (round(value * scale[i % 2]) for i, value in enumerate(box))
    except OverflowError:  # digits of a released ground truth beyond float's range, which no crop takes either
        return None
    if clip:
        x1, x2 = (min(max(x, 0), size[0]) for x in (x1, x2))
        y1, y2 = (min(max(y, 0), size[1]) for y in (y1, y2))
    return None if x1 >= x2 or y1 >= y2 else (x1, y1, x2, y2)


def _beyond_pillow(box: tuple[int, int, int, int]) -> bool:
    """Whether `Image.crop` refuses the box, which the released code scores as 0; a box inside a picture never is."""
    limit = Image.MAX_IMAGE_PIXELS
    return limit is not None and (box[2] - box[0]) * (box[3] - box[1]) > 2 * limit


def whole_or(box: tuple[int, int, int, int], size: Size) -> Region:
    """None where the box is the whole image, so that both are embedded once and compare equal; else the box."""
    return None if box == (0, 0, *size) else box
