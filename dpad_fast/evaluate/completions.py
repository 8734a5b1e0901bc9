"""Completions of a policy for the samples of any data, written as they come: a kill costs one batch.

The file is JSONL that `evaluate --predictions` reads: {"id", "completion", "model_size"}, the last of which is the
[width, height] that the answer's coordinates refer to. FILE.settings.json beside it says what was
asked, and at the end how many lines there are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from dpad_fast import files
from dpad_fast.clip.images import find_pictures
from dpad_fast.evaluate.asking import Asking
from dpad_fast.evaluate.infer import ask_as, coordinates_of
from dpad_fast.evaluate.sampling import sample_completions
from dpad_fast.model_size import model_size_for
from dpad_fast.train import processes, resume
from dpad_fast.types import Sample, Size

Progress = Callable[[int], None]
Answer = Callable[[int, Sequence[Sample]], list[str]]
_UNITS: dict[str, Size] = {"norm1000": (1000, 1000), "norm1": (1, 1)}


def write_completions(
    path: Path,
    samples: Callable[[], Iterable[Sample]],
    asking: Asking,
    asked: Mapping[str, Any],
    device: torch.device,
    progress: Progress | None = None,
) -> int:
    """Sample a policy for every sample and write a line per completion, in the order of the data.

    The processes of a distributed run share the samples batch by batch; the main one writes. What is generated together
    does not depend on their number, nor on where an earlier call was killed.

    Args:
        path: the file; one that an earlier call with the same settings left is gone on with.
        samples: gives the data, one sample at a time.
        asking: the policy and how it is asked.
        asked: what else the completions depend on, such as which data; plain values.
        device: where the policy runs.
        progress: called with the number of lines that stand in the file: first with those of an earlier call.

    Returns:
        The number of lines.

    Raises:
        ValueError: the file is of other settings (they are named), two samples have one id, or a picture cannot be
            read.
    """
    whole = json.loads(json.dumps({**asdict(asking), **asked}))
    del whole["format"]  # is for reading them
    per_batch = max(1, asking.batch // asking.samples)
    written, done = processes.from_main(lambda: _begin(path, whole, per_batch * asking.samples))
    if progress is not None:
        progress(written)
    if done:
        return written
    rest = islice(_batches(samples(), per_batch), written // (per_batch * asking.samples), None)
    answer = _answering(asking, device)
    with ExitStack() as held:
        file = held.enter_context(path.open("a", encoding="utf-8", newline="\n")) if processes.is_main() else None
        while batches := list(islice(rest, processes.count())):
            lines = _shared(batches, answer)
            written += len(lines)
            if file is not None:
                file.write("".join(lines))
                file.flush()
            if progress is not None:
                progress(written)
    processes.from_main(lambda: files.write_json(_settings(path), {"asked": whole, "lines": written}))
    return written


def _settings(path: Path) -> Path:
    return Path(f"{path}.settings.json")


def _begin(path: Path, asked: dict[str, Any], per_batch: int) -> tuple[int, bool]:
    """Lines of whole batches that stand in the file, what follows them cut off; and whether they are all."""
    there = resume.read_json(_settings(path))
    if path.is_file() and path.stat().st_size:
        if not isinstance(there, dict) or not isinstance(there.get("asked"), dict):
            raise ValueError(f"{path} is there, but {_settings(path).name} is not beside it: give --completions FILE")
        if there["asked"] != asked:
            names = {**asked, **there["asked"]}
            other = [name for name in names if asked.get(name) != there["asked"].get(name)]
            raise ValueError(
                f"{path} holds completions that were asked for otherwise (differs in {', '.join(other)}); give "
                "--completions another file, or delete that one"
            )
        return _cut(path, per_batch, there.get("lines"))
    path.write_bytes(b"")
    files.write_json(_settings(path), {"asked": asked, "lines": None})
    return 0, False


def _cut(path: Path, per_batch: int, complete: int | None) -> tuple[int, bool]:
    number = end = kept = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            number, end = number + 1, end + len(line)
            if number % per_batch == 0:
                kept = end
    if number == complete and end == path.stat().st_size:
        return number, True
    os.truncate(path, kept)
    return number - number % per_batch, False


def _batches(samples: Iterable[Sample], size: int) -> Iterator[tuple[int, list[Sample]]]:
    """(number of its first sample, samples) of each batch."""
    seen: set[str] = set()
    rest, first = iter(samples), 0
    while batch := list(islice(rest, size)):
        for sample in batch:
            if sample.id in seen:
                raise ValueError(f"the data has two samples of the id {sample.id!r:.80}")
            seen.add(sample.id)
        yield first, batch
        first += len(batch)


def _shared(batches: Sequence[tuple[int, list[Sample]]], answer: Answer) -> list[str]:
    """The lines of a round of batches, one batch per process; an error of one process is every process's."""
    lines: list[str] = []
    wrong: ValueError | None = None
    if processes.rank() < len(batches):
        try:
            lines = answer(*batches[processes.rank()])
        except ValueError as error:
            if processes.count() == 1:
                raise
            wrong = error
    found = processes.gather([(lines, wrong)])
    faults = [fault for _, fault in found if fault is not None]
    if faults:
        raise faults[0]
    return [line for own, _ in found for line in own]


def _answering(asking: Asking, device: torch.device) -> Answer:
    """A function that generates a batch's completions and writes them as lines."""
    model, processor = asking.load(device)
    space = asking.coordinates or coordinates_of(model)
    ask = ask_as(asking.prompt, asking.system, space)

    def size_of(shown: Size) -> Size:
        if space != "pixel":
            return _UNITS[space]
        return asking.model_size or model_size_for(shown, processor) or shown

    def answer(first: int, batch: Sequence[Sample]) -> list[str]:
        pictures = [_picture(sample) for sample in batch]
        texts = sample_completions(
            model,
            processor,
            [replace(sample, image=picture) for sample, picture in zip(batch, pictures, strict=True)],
            per_item=asking.samples,
            batch=asking.batch,
            max_new_tokens=asking.tokens,
            temperature=asking.temperature,
            seed=asking.seed + first,
            ask=ask,
        )
        return [
            json.dumps({"id": sample.id, "completion": text, "model_size": list(size_of(picture.size))}) + "\n"
            for sample, picture, own in zip(batch, pictures, texts, strict=True)
            for text in own
        ]

    return answer


def _picture(sample: Sample) -> Image.Image:
    """The picture, upright and RGB."""
    try:
        picture = find_pictures([sample.image], None)[0][0]
        return Image.fromarray(picture.pixels().contiguous().cpu().numpy())
    except ValueError as error:
        raise ValueError(f"{sample.id}: {str(error).removeprefix('images[0]: ')}") from error
