"""The host's part of a step on a GPU, timed on any CPU: `python -m bench.reward --host`.

HOST ONLY: no tower runs, nothing is launched, nothing is copied to a device. This is not a time on a GPU.

Ours is the code of a GPU step (`GpuStep`, `GpuWay`, `CapturedTowers`): parsing, geometry, tokens, packing, tables,
digests, staging, the plan of crops, the guard. Stand-ins take the place of the GPU alone: replays leave numbers that
are ready, copies to it copy nothing, regions are not resampled. The hand-written step parses, crops, tokenises, pads
and makes its lists; its towers give ready numbers too, and of its processor only the conversion of pictures to tensors
runs. So too little is counted for it: on a GPU its host makes hundreds of launches, ours some ten. What both do with
embeddings (lengths, products, sums of 128 rows) is computed on the CPU, where a step on a GPU would launch it.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

import dpad_fast as df
from bench import results
from bench.gpu.clocks import beginning_with
from bench.reward import work as ways
from bench.reward.gpu import Pictures, model_of, prepare, work_of
from bench.reward.gpu_ways import JPEG, KNOWN, PIL, Batched, Clip, OnTransformers
from bench.reward.race import Contestant
from bench.reward.report import STAGES
from bench.reward.turns import Turn, columns, measured, ratio
from dpad_fast.clip.gpu_way import GpuWay
from dpad_fast.clip.tower.forward import TowerForward
from dpad_fast.clip.tower.gpu_attention import GpuProducts
from dpad_fast.clip.tower.towers import Towers
from dpad_fast.clip.tower.weights import read_weights
from dpad_fast.testing.gpu import IdleGpu
from dpad_fast.testing.graphs import Ready
from dpad_fast.testing.towers import by_sequence

NOTE = "host only, no launch, no tower; not a time on a GPU"
RUNS = 25
AGAIN = 7  # of 128: what "guarded" looked at again on an H100, 27 November 2026
HAND = "transformers"
_WARM_UPS = 2
_ROWS = 16384  # of the towers on a GPU, where `rows_at_once` is not given
_SIZE = 16  # numbers of an embedding
_MARGIN = 0.5  # between 0, how far near completions are from the threshold here, and 2 of the others
_CACHE = 64 << 20  # bytes that are written between two turns: a step finds the caches as a trainer leaves them


@dataclass
class Entrant:
    """A contestant with its turns."""

    name: str
    pictures: str
    way: Any
    turns: list[Turn] = field(default_factory=list)
    recomputed: list[int] = field(default_factory=list)


class ReadyTowers(OnTransformers):
    """transformers' model with ready numbers in the place of its towers and of all that its processor would launch.

    Args:
        clip: the model with its processors.
    """

    def __init__(self, clip: Clip) -> None:
        super().__init__(clip.model, clip.fast, pixels_there=False)
        self._size = clip.model.config.projection_dim

    def pixels(self, views: list[Image.Image]) -> torch.Tensor:
        """Makes the tensors of pictures that the processor copies to the GPU, and nothing of what it launches there."""
        for view in views:
            self.processor.image_processor.process_image(view, do_convert_rgb=True)
        return torch.empty(len(views), 0)

    def images(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `gpu_ways.Towers`."""
        return _rows(len(pixels), self._size)[0]

    def texts(self, captions: list[str]) -> torch.Tensor:
        """See `gpu_ways.Towers`."""
        ids = self.processor.tokenizer(captions, padding=True, return_tensors="pt")["input_ids"]
        return _rows(len(ids), self._size)[0]


def _rows(count: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ready embeddings [count, size]: of pictures, which alternate, and of captions that are near to the threshold.

    A picture's region and the whole picture follow each other. So a caption along the first axis has S1 - S2 = 2 or
    -2, and one along the second has 0.
    """
    pictures, near = torch.zeros(2, count, size)
    pictures[::2, 0], pictures[1::2, 0], near[:, 1] = 1.0, -1.0, 1.0
    return pictures, near


class ReadyForward:
    """A GPU's captured towers whose replays leave ready numbers: a `Forward` whose host's part alone is done.

    Args:
        model: a CLIPModel; what it computes does not matter, and one of few layers is made sooner.
        half: float16 with variable-length attention, else float32 with padded attention: as they run on an H100.
        near: of the captions of a call, in the order in which they are packed, how many are near to the threshold.
    """

    def __init__(self, model: Any, half: bool, near: int) -> None:
        weights = read_weights(model)
        assert weights is not None, "a CLIPModel has towers"
        products = GpuProducts(torch.float16, by_sequence, "variable lengths") if half else GpuProducts(torch.float32)
        towers = Towers(weights, products, _ROWS)
        texts, images = Ready(), Ready()  # they cannot tell what they record
        self._texts, self._images = (TowerForward(towers).captured(recorder) for recorder in (texts, images))
        self.name, self.precision = self._texts.name, self._texts.precision
        pictures, close = _rows(_ROWS, model.config.projection_dim)
        images.give(pictures)
        texts.give(torch.cat([close[:near], pictures[near:]]))
        towers.copy_patches = lambda pixels, flat: None  # type: ignore[method-assign]  # a launch

    def texts(self, rows: Sequence[Any], threads: int) -> torch.Tensor:
        """See `Forward`."""
        return self._texts.texts(rows, threads)

    def images(self, pixels: torch.Tensor, threads: int) -> torch.Tensor:
        """See `Forward`."""
        return self._images.images(pixels, threads)


def host_encoder(clip: Clip, precision: str, again: int) -> df.ClipEncoder:
    """An encoder that takes its steps as on a GPU, of which nothing but the host's part is there.

    Args:
        clip: the model with its processors.
        precision: "float32" or "guarded".
        again: captions of a call that "guarded" finds near to the threshold, and whose pictures it looks at again too:
            in float32 they are as near.
    """
    encoder = df.ClipEncoder.from_transformers(clip.model, clip.slow, precision=precision)
    encoder._way = GpuWay(IdleGpu())
    # What comes out of `by_the_plan` is copied for a second look, which is a launch: of a pixel it takes no time.
    encoder.preprocess = replace(encoder.preprocess, size=1)
    exact = ReadyForward(clip.model, False, _ROWS if precision == "guarded" else 0)
    encoder._forwards = {True: exact}
    if precision == "guarded":
        encoder._forwards[False] = ReadyForward(clip.model, True, again)
        encoder.margin = encoder.image_margin = _MARGIN
    return encoder


@contextmanager
def by_the_plan() -> Iterator[None]:
    """Within it `roi_clip_preprocess` does the host's part of a GPU's, and leaves garbage: no kernel is launched.

    Encoders are made before: they measure their first look on pictures.
    """
    from dpad_fast.kernels import _crop_plan

    op: Any = importlib.import_module("dpad_fast.ops.roi_clip_preprocess")

    def plan(inputs: Any, out: torch.Tensor) -> None:
        options = {key: getattr(inputs, key) for key in ("resize", "interpolation", "center", "order", "mean", "std")}
        given = inputs.images, inputs.boxes, inputs.image_index
        _crop_plan.prepare(*given, size=inputs.size, dtype=inputs.dtype, device=out.device, **options)

    before, op._cpu_out = op._cpu_out, plan
    try:
        yield
    finally:
        op._cpu_out = before


def few_layers(tiny: bool) -> Clip:
    """The contestants' model: its towers have one layer, which is enough to be captured, and make few numbers.

    With the true 512 numbers what is computed of embeddings, launches of a step on a GPU, would wake torch's threads.
    """
    clip = Clip(*model_of(tiny))
    model = clip.model
    for tower in (model.text_model.encoder, model.vision_model.encoder):
        tower.layers = tower.layers[:1]
    model.config.projection_dim = _SIZE
    for name in ("text_projection", "visual_projection"):
        getattr(model, name).weight = torch.nn.Parameter(getattr(model, name).weight[:_SIZE])
    return clip


def enter(clip: Clip, again: int) -> list[Entrant]:
    """All contestants, with pictures in every form."""
    found = []
    for precision in ("float32", "guarded"):
        encoder = host_encoder(clip, precision, again)
        found += [Entrant(f"dpad_fast {precision}", form, Contestant(encoder, form == KNOWN)) for form in _FORMS]
    towers = ReadyTowers(clip)
    return found + [Entrant(HAND, form, Batched(towers, remember=form == KNOWN)) for form in _FORMS]


_FORMS = (PIL, JPEG, KNOWN)
_HEADS = {  # short, since a table of 150 columns must hold them all
    "p50_ms": "ms",
    "least_ms": "least",
    "process_ms": "CPU ms",
    "ms_of_hand_written": "of hand",
    "process_ms_of_hand_written": "by CPU",
    "recomputed": "again",
}


def take_turns(entrants: Sequence[Entrant], works: Sequence[ways.Work], pictures: Pictures) -> None:
    """Times all, in turns, on captions that are new in each; the first turns are not counted."""
    other = torch.zeros(_CACHE // 8, dtype=torch.int64)
    for turn, fresh in enumerate(works):
        for one in beginning_with(entrants, turn):
            given = pictures.of(fresh, one.pictures)
            prepare(one.way, given)
            other.add_(1)  # what lies in the caches is other memory
            if turn == _WARM_UPS:
                one.way.stages.clear()
            found = measured(lambda way=one.way, given=given: way(given), lambda: None)  # type: ignore[misc]
            if turn < _WARM_UPS:
                continue
            one.turns.append(found)
            if isinstance(one.way, Contestant):
                one.recomputed.append(one.way.scorer.recomputed)


def row(one: Entrant, hand: Entrant, threads: int) -> dict[str, Any]:
    """One line of the result; `hand` is the hand-written step with pictures in the same form."""
    way = one.way
    compared = {key: ratio(one.turns, hand.turns, key) for key in ("ms", "process_ms")}
    laps = {stage: statistics.median(lap.get(stage, 0.0) for lap in way.stages) for stage in STAGES}
    again = sorted(set(one.recomputed)) if isinstance(way, Contestant) and way.encoder.precision == "guarded" else ()
    return {
        "contestant": one.name,
        "pictures": one.pictures,
        **columns(one.turns),
        "threads": threads,
        **{f"{key}_of_hand_written": f"{found[1]:.3f}" for key, found in compared.items() if found},
        "recomputed": " or ".join(map(str, again)),
        **{f"{stage}_ms": f"{1e3 * seconds:.2f}" for stage, seconds in laps.items()},
        **results.day(torch.device("cpu")),
    }


def run(args: argparse.Namespace, console: Console) -> int:
    """Time in turns, print, and write where `--out` names a folder."""
    torch.set_num_threads(args.threads)
    runs = args.runs or RUNS
    console.print(f"{NOTE}\n{results.versions()}; {results.name_of(torch.device('cpu'))}; threads: {args.threads}")
    entrants, make_work = enter(few_layers(args.tiny), args.again), work_of(args.tiny)
    shown, count = [ways.photograph(i) for i in range(args.queries)], args.queries * ways.GROUP
    works = [make_work(shown, count, seed=1000 + turn) for turn in range(runs + _WARM_UPS)]
    with by_the_plan():
        take_turns(entrants, works, Pictures(works[0]))
    hand = {one.pictures: one for one in entrants if one.name == HAND}
    rows = [row(one, hand[one.pictures], args.threads) for one in entrants]
    if args.out:
        results.write("reward-host", rows, Path(args.out))
    table = Table(title=f"{count} completions, milliseconds, medians of {runs} turns")
    keys = (*_HEADS, *(f"{stage}_ms" for stage in STAGES))
    for name in ("contestant", "pictures", *(_HEADS.get(key, key.removesuffix("_ms")) for key in keys)):
        table.add_column(name, no_wrap=True)
    for line in rows:
        table.add_row(line["contestant"], line["pictures"], *(str(line[key]) for key in keys))
    console.print(table)
    return 0
