"""The discriminative term: does the caption fit its region better than the region's contrast?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from dpad_fast._native.numbers import float32, int64
from dpad_fast.clip.images import Picture
from dpad_fast.ops.discriminative_reward import discriminative_reward, reward_of
from dpad_fast.rewards.config import RewardConfig
from dpad_fast.rewards.places import CaptionRow, Place, PlaceFinder, Places
from dpad_fast.row_errors import RowErrors
from dpad_fast.timer import Timer

if TYPE_CHECKING:
    from dpad_fast.clip.encoder import ClipEncoder
    from dpad_fast.clip.step import Step
    from dpad_fast.clip.tokens import Ids


class _Comparison(NamedTuple):
    """A row, ready to be compared.

    Attributes:
        row: the row.
        windows: token ids of its caption's windows, at least one.
        places: the region and its contrasts.
    """

    row: CaptionRow
    windows: Sequence[Ids]
    places: Places


class Discriminator:
    """Scores the captions of one batch with one pass over texts and one over images.

    Args:
        pictures: the batch's.
        config: the term's settings.
        encoder: the CLIP-like model.
        errors: takes the rows whose target or picture is bad; None: they raise.

    Attributes:
        compared: captions compared under "guarded".
        recomputed: those of them that were embedded again in float32.
    """

    def __init__(
        self, pictures: Sequence[Picture], config: RewardConfig, encoder: ClipEncoder, errors: RowErrors | None = None
    ) -> None:
        self.compared = self.recomputed = 0
        self._sources, self._places = pictures, PlaceFinder(pictures, config)
        self._config, self._encoder = config, encoder
        self._errors = errors or RowErrors()

    def run(self, rows: Sequence[CaptionRow], timings: dict[str, float]) -> dict[int, tuple[float, float, float] | str]:
        """By row index (reward, S1, S2), or the reason code of a row with nothing to compare.

        Args:
            rows: those with a caption.
            timings: seconds per stage, which are increased.
        """
        results: dict[int, tuple[float, float, float] | str] = {}
        timer = Timer(timings)
        unique = list(dict.fromkeys(row.caption for row in rows))
        ids = dict(zip(unique, self._encoder.tokens.encode(unique), strict=True))
        timer.lap("text")
        ready = []
        for row in rows:
            try:
                found = self._prepare(row, ids[row.caption])
            except ValueError as error:
                self._errors.add(row.position, error)
                continue
            if isinstance(found, str):
                results[row.position] = found
            else:
                ready.append(found)
        timer.lap("geometry")
        while ready:
            try:
                s1, s2 = self._compare(ready, timings)
            except ValueError as error:
                ready = self._readable(ready, error)
                continue
            reward = apply_shape(s1, s2, self._config)
            numbers = zip(reward.tolist(), s1.tolist(), s2.tolist(), strict=True)
            results.update(zip((one.row.position for one in ready), numbers, strict=True))
            break
        return results

    def _prepare(self, row: CaptionRow, ids: Ids | str) -> _Comparison | str:
        """The row's windows and places; or a reason code."""
        if isinstance(ids, str):
            return ids
        tokens, long_caption = self._encoder.tokens, self._config.long_caption
        if tokens.fits(ids):
            windows: Sequence[Ids] = (ids,)
        elif long_caption == "zero":
            return "too-long"
        else:
            windows = [tokens.truncate(ids)] if long_caption == "truncate" else tokens.windows(ids)
        places = self._places.find(row)
        return places if isinstance(places, str) else _Comparison(row, windows, places)

    def _compare(self, ready: Sequence[_Comparison], timings: dict[str, float]) -> tuple[torch.Tensor, torch.Tensor]:
        """S1 and S2, float32 [J], as the encoder's precision says."""
        exact = self._encoder.precision == "float32"
        step = self._encoder.step(timings)
        s1, s2 = self._similarities(step, ready, exact_text=exact, exact_image=exact, timings=timings)
        if self._encoder.precision == "guarded":
            self._guard(step, ready, s1, s2, timings)
        return s1, s2

    def _readable(self, ready: Sequence[_Comparison], error: ValueError) -> list[_Comparison]:
        """The comparisons whose picture can be decoded; raises the error again if all pictures can."""
        if not self._errors.kept:
            raise error
        # Not the errors: their tracebacks and this frame would keep each other, and the pixels, until Python looks.
        broken: dict[int, str] = {}
        for number in dict.fromkeys(one.row.picture for one in ready):
            try:
                self._sources[number].pixels()
            except ValueError as found:
                broken[number] = str(found)
        if not broken:
            raise error
        for one in ready:
            if one.row.picture in broken:
                self._errors.add(one.row.position, ValueError(broken[one.row.picture]))
        return [one for one in ready if one.row.picture not in broken]

    def _guard(
        self,
        step: Step,
        ready: Sequence[_Comparison],
        s1: torch.Tensor,
        s2: torch.Tensor,
        timings: dict[str, float],
    ) -> None:
        """Embeds again in float32 near the threshold: captions first, which are cheap, then pictures."""

        def look_again(near: list[int], *, exact_image: bool) -> None:
            if near:
                again, at = [ready[i] for i in near], int64(near)
                s1[at], s2[at] = self._similarities(
                    step, again, exact_text=True, exact_image=exact_image, timings=timings
                )

        rows = self._near(s1, s2, range(len(ready)), self._encoder.margin)
        self.compared += len(ready)
        self.recomputed += len(rows)
        look_again(rows, exact_image=False)
        if step.coarse:  # else there is nothing left to look at
            look_again(self._near(s1, s2, rows, self._encoder.image_margin), exact_image=True)

    def _near(self, s1: torch.Tensor, s2: torch.Tensor, rows: Sequence[int], margin: float) -> list[int]:
        """Those of the rows whose S1 - S2 (or S1) is within the margin of its threshold."""
        apart = s1 - s2
        distance = s1 - self._config.tau if self._config.shape == "roi-threshold" else apart
        # Lists: a dozen of torch's operations on so few numbers take longer.
        differences, distances = apart.tolist(), distance.tolist()
        most = float32((margin,)).item()  # as the distances are: what is as far as the margin is near
        # What is not finite is near: a value was beyond the range of the first look's float16.
        return [i for i in rows if not (abs(distances[i]) > most and math.isfinite(differences[i]))]

    def _similarities(
        self,
        step: Step,
        ready: Sequence[_Comparison],
        *,
        exact_text: bool,
        exact_image: bool,
        timings: dict[str, float],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """S1 and S2, float32 [J]: means over a caption's windows, S2 the largest over its contrasts."""
        timer = Timer(timings)
        # What is distinct is embedded once, under the number that it gets where it is first seen.
        texts: dict[Ids, int] = {}
        pairs: dict[tuple[Place, Place], int] = {}
        captions, pair_of = [], []
        for _, windows, (roi, others) in ready:
            for other in others:
                pair = pairs.setdefault((roi, other), len(pairs))
                captions += [texts.setdefault(window, len(texts)) for window in windows]
                pair_of += [pair] * len(windows)
        places = {place: i for i, place in enumerate(dict.fromkeys(place for pair in pairs for place in pair))}
        rois, contrasts = [places[roi] for roi, _ in pairs], [places[other] for _, other in pairs]
        timer.lap("combine")
        # Captions first: on a GPU they are embedded while pictures are digested, decoded and sent.
        text = step.texts(list(texts), exact=exact_text)
        image = step.regions(self._places.pictures, list(places), exact=exact_image)
        timer = Timer(timings)
        at = step.numbers(captions, rois, contrasts, pair_of)
        _, *found = discriminative_reward(text[at[0]], image[at[1]], image[at[2]], at[3], shape="margin")
        timer.lap("combine")
        first, second = step.finish(*found)
        timer = Timer(timings)
        if len(captions) != len(ready):
            first, second = _gather(ready, first, second)
        timer.lap("combine")
        return first, second


def _gather(
    ready: Sequence[_Comparison], first: torch.Tensor, second: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    s1, s2 = [], []
    start = 0
    for one in ready:
        shape = (len(one.places.contrasts), len(one.windows))
        count = shape[0] * shape[1]
        s1.append(first[start : start + count].view(shape).mean(dim=1)[0])
        s2.append(second[start : start + count].view(shape).mean(dim=1).max())
        start += count
    return torch.stack(s1), torch.stack(s2)


def apply_shape(s1: torch.Tensor, s2: torch.Tensor, config: RewardConfig) -> torch.Tensor:
    """The discriminative term from S1 and S2, elementwise; formulas in docs/rewards.md."""
    return reward_of(s1, s2, shape=config.shape, alpha=config.alpha, tau=config.tau)
