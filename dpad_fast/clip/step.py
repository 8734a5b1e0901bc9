"""A step of an encoder: captions and regions are embedded and compared where the model is, and come back together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol

import torch

from dpad_fast._native.numbers import int64
from dpad_fast.clip.gpu_way import GpuWay
from dpad_fast.clip.inputs import REGIONS, Chunk, ahead, chunked, make_inputs, send_inputs
from dpad_fast.clip.preprocess import PixelSource, Preprocess
from dpad_fast.clip.regions import Region
from dpad_fast.clip.tokens import Ids
from dpad_fast.clip.tower.forward import Forward, check_finite, unit
from dpad_fast.timer import Timer

Tensor = torch.Tensor
PlaceKey = tuple[Hashable, Region]
"""A picture's content and a region of it."""
_TEXT_CHUNK = 1024
# Of preprocessed regions that "guarded" keeps on the GPU, in case some are to be embedded again.
_KEPT_BYTES = 256 << 20


class Step(Protocol):
    """What a scorer asks of an encoder for one batch.

    Attributes:
        coarse: whether a region's embedding was not in float32 so far.
    """

    coarse: bool

    def texts(self, ids: Sequence[Ids], *, exact: bool) -> Tensor:
        """Unit embeddings, float32 [N, D], of token id lists; in float32 if `exact`."""
        ...

    def regions(self, pictures: Sequence[PixelSource], regions: Chunk, *, exact: bool) -> Tensor:
        """Unit embeddings, float32 [K, D], of K pairs (index of the picture, box or None for the whole)."""
        ...

    def numbers(self, *lists: Sequence[int]) -> list[Tensor]:
        """Int64 tensors where the embeddings are."""
        ...

    def finish(self, *results: Tensor) -> list[Tensor]:
        """Float32 tensors computed from the embeddings, on the CPU.

        Raises:
            ValueError: an embedding is not finite.
        """
        ...


class Embedder(Protocol):
    """What a step asks of its encoder; `ClipEncoder` is the one."""

    name: str
    preprocess: Preprocess

    def used_threads(self) -> int:
        """CPU threads."""
        ...

    def forward_for(self, exact: bool) -> Forward:
        """The forward that serves."""
        ...

    def guards(self, exact: bool) -> bool:
        """Whether its embeddings are a first look, which need not be finite."""
        ...

    def known_texts(self, ids: Sequence[Ids], exact: bool) -> dict[Ids, Tensor]:
        """Cached embeddings of different id lists."""
        ...

    def keep_texts(self, ids: Sequence[Ids], values: Tensor, exact: bool) -> None:
        """Puts embeddings into the cache."""
        ...

    def known_regions(
        self, pictures: Sequence[PixelSource], regions: Chunk, exact: bool
    ) -> tuple[list[PlaceKey], dict[PlaceKey, Tensor], int]:
        """The regions by content, the cached embeddings of some of them, and how many of these are float32."""
        ...

    def keep_regions(self, places: Sequence[PlaceKey], values: Tensor, exact: bool, again: bool = False) -> None:
        """Puts embeddings into the cache; `again`: those of a second look."""
        ...


@dataclass(frozen=True)
class _Made:
    """Embeddings on the GPU, what puts their copy into the cache, and whether they are a first look."""

    values: Tensor
    keep: Callable[[Tensor], None]
    first: bool


@dataclass(frozen=True)
class _Looked:
    """What `GpuStep.regions` gave: `rows` [K, D] on the GPU, and where each region's row is."""

    pictures: Sequence[PixelSource]
    exact: bool
    at: Mapping[tuple[int, Region], int]
    rows: Tensor


class HostStep:
    """A step whose results are there when a call returns; also of a GPU whose inputs are made on the CPU.

    Args:
        encoder: the encoder.
        timings: seconds per stage, which are increased.
    """

    def __init__(self, encoder: Embedder, timings: dict[str, float] | None = None) -> None:
        self._encoder, self._timings = encoder, timings
        self.coarse = False

    def texts(self, ids: Sequence[Ids], *, exact: bool) -> Tensor:
        """See `Step`."""
        timer = Timer(self._timings)
        encoder = self._encoder
        unique = list(dict.fromkeys(ids))
        forward, found = encoder.forward_for(exact), encoder.known_texts(unique, exact)
        missing = [row for row in unique if row not in found]
        for start in range(0, len(missing), _TEXT_CHUNK):
            chunk = missing[start : start + _TEXT_CHUNK]
            values = forward.texts(chunk, encoder.used_threads()).to("cpu")
            values = unit(values, encoder.name, first=encoder.guards(exact))
            encoder.keep_texts(chunk, values, exact)
            found.update(zip(chunk, values, strict=True))
        timer.lap("text")
        return torch.stack([found[row] for row in ids])

    def regions(self, pictures: Sequence[PixelSource], regions: Chunk, *, exact: bool) -> Tensor:
        """See `Step`."""
        timer = Timer(self._timings)
        encoder = self._encoder
        forward = encoder.forward_for(exact)
        places, found, in_float32 = encoder.known_regions(pictures, regions, exact)
        wanted = dict(zip(places, regions, strict=True))
        missing = _by_picture(wanted, found)
        self.coarse |= in_float32 < len(wanted) and forward.precision != "float32"
        timer.lap("preprocess")
        chunks = chunked(pictures, [wanted[place] for place in missing])
        rest = iter(missing)
        for chunk, inputs in zip(chunks, ahead(partial(self._inputs, pictures), chunks), strict=True):
            timer = Timer(self._timings)
            values = forward.images(inputs, encoder.used_threads()).to("cpu")
            values = unit(values, encoder.name, first=encoder.guards(exact))
            timer.lap("image")
            part = list(islice(rest, len(chunk)))
            encoder.keep_regions(part, values, exact, exact and self.coarse)
            found.update(zip(part, values, strict=True))
        return torch.stack([found[place] for place in places])

    def _inputs(self, pictures: Sequence[PixelSource], chunk: Chunk) -> Tensor:
        timer = Timer(self._timings)
        inputs = make_inputs(self._encoder.preprocess, pictures, chunk, self._encoder.used_threads())
        timer.lap("preprocess")
        return inputs

    def numbers(self, *lists: Sequence[int]) -> list[Tensor]:
        """See `Step`."""
        return list(map(int64, lists))

    def finish(self, *results: Tensor) -> list[Tensor]:
        """See `Step`."""
        return list(results)


class GpuStep:
    """A step on a GPU: calls queue work and return, `finish` waits for all of it once.

    New embeddings come back with the results, in the same copy, and only then go into the cache: it stays on the host,
    where encoders on other devices and the file share it. Known ones go up, 2 KB each.

    Args:
        encoder: the encoder.
        way: its own.
        timings: seconds per stage, which are increased. The wait counts as "image".
    """

    def __init__(self, encoder: Embedder, way: GpuWay, timings: dict[str, float] | None = None) -> None:
        self._encoder, self._way, self._timings = encoder, way, timings
        self.coarse = False
        self._made: list[_Made] = []
        self._inputs: dict[PlaceKey, Tensor] = {}
        self._looked: _Looked | None = None

    def texts(self, ids: Sequence[Ids], *, exact: bool) -> Tensor:
        """See `Step`; on the GPU. The model's call is queued, and whatever the caller does next runs beside it."""
        timer = Timer(self._timings)
        encoder, threads = self._encoder, self._encoder.used_threads()
        unique = list(dict.fromkeys(ids))
        known = encoder.known_texts(unique, exact)
        missing = [row for row in unique if row not in known] if known else unique
        made = []
        if missing:
            values = encoder.forward_for(exact).texts(missing, threads)
            keep = partial(encoder.keep_texts, missing, exact=exact)
            made.append(self._embed(values, keep, encoder.guards(exact)))
        found = self._joined(made, missing, known, ids)
        timer.lap("text")
        return found

    def regions(self, pictures: Sequence[PixelSource], regions: Chunk, *, exact: bool) -> Tensor:
        """See `Step`; on the GPU. Pictures are digested, decoded and sent while it works on what it was given before.

        Raises:
            ValueError: a picture cannot be decoded.
        """
        found = self._looked_at(pictures, regions, exact)
        if found is None:
            found = self._look(pictures, regions, exact)
            self._looked = _Looked(pictures, exact, {region: i for i, region in enumerate(regions)}, found)
        return found

    def _looked_at(self, pictures: Sequence[PixelSource], regions: Chunk, exact: bool) -> Tensor | None:
        """Rows of the last result where it has them all: what is on the GPU is neither looked up nor sent again."""
        looked = self._looked
        if looked is None or looked.pictures is not pictures or looked.exact != exact:
            return None
        if any(region not in looked.at for region in regions):
            return None
        return looked.rows[self.numbers([looked.at[region] for region in regions])[0]]

    def _look(self, pictures: Sequence[PixelSource], regions: Chunk, exact: bool) -> Tensor:
        timer = Timer(self._timings)
        places, known, in_float32 = self._encoder.known_regions(pictures, regions, exact)
        wanted = dict(zip(places, regions, strict=True))
        missing = _by_picture(wanted, known)
        self.coarse |= in_float32 < len(wanted) and self._encoder.forward_for(exact).precision != "float32"
        again = [place for place in missing if place in self._inputs]
        missing = [place for place in missing if place not in self._inputs]
        timer.lap("preprocess")
        made = [
            self._embed_inputs(part, torch.stack([self._inputs[place] for place in part]), exact)
            for part in (again[start : start + REGIONS] for start in range(0, len(again), REGIONS))
        ]
        chunks = chunked(pictures, [wanted[place] for place in missing])
        rest = iter(missing)
        for chunk, inputs in zip(chunks, ahead(partial(self._sent, pictures), chunks), strict=True):
            part = list(islice(rest, len(chunk)))
            made.append(self._embed_inputs(part, inputs, exact))
            self._remember(part, inputs, exact)
        return self._joined(made, [*again, *missing], known, places)

    def numbers(self, *lists: Sequence[int]) -> list[Tensor]:
        """See `Step`."""
        return self._way.gpu.numbers(*lists)

    def finish(self, *results: Tensor) -> list[Tensor]:
        """See `Step`: the only wait."""
        timer = Timer(self._timings)
        made, self._made = self._made, []
        parts = [*results, *(one.values for one in made)]
        sizes = [part.numel() for part in parts]
        here = torch.split(self._way.gpu.to_host(torch.cat([part.reshape(-1) for part in parts])), sizes)
        found = [piece.view(part.shape) for piece, part in zip(here, parts, strict=True)]
        embeddings = list(zip(made, found[len(results) :], strict=True))
        for one, values in embeddings:
            if not one.first:
                check_finite(values, self._encoder.name)
        for one, values in embeddings:
            one.keep(values)
        timer.lap("image")
        return found[: len(results)]

    def _sent(self, pictures: Sequence[PixelSource], chunk: Chunk) -> Tensor:
        timer = Timer(self._timings)
        encoder = self._encoder
        inputs = send_inputs(encoder.preprocess, pictures, chunk, encoder.used_threads(), self._way)
        timer.lap("preprocess")
        return inputs

    def _embed_inputs(self, places: Sequence[PlaceKey], inputs: Tensor, exact: bool) -> Tensor:
        timer = Timer(self._timings)
        encoder = self._encoder
        values = encoder.forward_for(exact).images(inputs, encoder.used_threads())
        keep = partial(encoder.keep_regions, places, exact=exact, again=exact and self.coarse)
        found = self._embed(values, keep, encoder.guards(exact))
        timer.lap("image")
        return found

    def _embed(self, values: Tensor, keep: Callable[[Tensor], None], first: bool) -> Tensor:
        """Unit embeddings of what the model gives, whether they are finite or not."""
        made = torch.nn.functional.normalize(values.to(self._way.gpu.device, non_blocking=True), dim=-1)
        self._made.append(_Made(made, keep, first))
        return made

    def _remember(self, places: Sequence[PlaceKey], inputs: Tensor, exact: bool) -> None:
        """Keeps inputs for the second look, so that no picture is decoded twice."""
        if not self._encoder.guards(exact):
            return
        size = inputs[0].numel() * inputs.element_size()
        if (len(self._inputs) + len(places)) * size <= _KEPT_BYTES:
            self._inputs.update(zip(places, inputs, strict=True))

    def _joined(
        self, made: Sequence[Tensor], keys: Sequence[Any], known: Mapping[Any, Tensor], wanted: Sequence[Any]
    ) -> Tensor:
        """Rows in the wanted order, of those that were made under `keys` and those that are known."""
        parts = [*made, *([self._way.gpu.rows(list(known.values()))] if known else [])]
        rows = parts[0] if len(parts) == 1 else torch.cat(parts)
        there = [*keys, *known]
        if there == list(wanted):
            return rows
        at = {key: i for i, key in enumerate(there)}
        return rows[self.numbers([at[key] for key in wanted])[0]]


def _by_picture(wanted: Mapping[PlaceKey, tuple[int, Region]], known: Mapping[PlaceKey, Tensor]) -> list[PlaceKey]:
    """Those that are not known, a picture's own one behind the other."""
    return sorted((place for place in wanted if place not in known), key=lambda place: wanted[place][0])
