"""Polygons as users give them, read and checked: as the extension's object, or as tensors for the registered ops."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from dpad_fast._native import extension
from dpad_fast._native.upload import upload
from dpad_fast.ops._mask_parts import polygon_args

RULES = ("coco", "opencv", "center")


def check_rule(rule: str, outline: bool = False) -> None:
    """Refuses an unknown rule, and an outline with a rule that has none."""
    check_choice("rule", rule, RULES)
    if outline and rule != "opencv":
        raise ValueError(f'outline=True needs rule="opencv", got rule={rule!r:.80}')


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuses a value that is not in `known`."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r:.80}")


def gather(polygons: Any, device: torch.device | str | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Vertices float64 [V, 2], ring starts [R + 1] and object starts [N + 1] of objects (see `rasterize_polygons`).

    Args:
        polygons: the objects. Those on the host are checked there before they are copied to a GPU.
        device: where the result shall be; None: where the vertices are.
    """
    target = None if device is None else torch.device(device)
    if torch.compiler.is_compiling():
        return _gather_tensors(polygons, target)
    objects = _as_objects(polygons)
    if _first_device(objects).type != "cpu":
        return _gather_tensors(objects, target)
    held = extension.C.Polygons(objects)
    vertices, rings, starts = (torch.from_numpy(array) for array in held.arrays())
    flat = vertices, rings, starts
    if target is None or target.type == "cpu":
        return flat
    extension.C.check_polygons(polygon_args(*flat))
    there = upload(flat, target)
    return there[0], there[1], there[2]


def read_on_host(polygons: Any, device: torch.device | str | None) -> Any:
    """The objects as `dpad_fast._C.Polygons`, where they are on the host and drawn there; otherwise None.

    It is also None in compiled graphs and under tensor subclasses: there the registered ops take tensors from `gather`.
    """
    if torch.compiler.is_compiling() or type(torch.empty(0, device="cpu")) is not torch.Tensor:
        return None
    objects = _as_objects(polygons)
    here = (device is None or torch.device(device).type == "cpu") and _first_device(objects).type == "cpu"
    return extension.C.Polygons(objects) if here else None


def _as_objects(polygons: Any) -> list[Any] | tuple[Any, ...]:
    if isinstance(polygons, torch.Tensor | np.ndarray):
        polygons = list(polygons)
    if not isinstance(polygons, list | tuple):
        raise ValueError(f"polygons must be a list of objects, got {type(polygons).__name__}")
    return polygons


def _first_device(polygons: Sequence[Any]) -> torch.device:
    """The device of the first ring, which all must share; checking every ring would cost more than drawing them."""
    first = polygons[0] if len(polygons) else None
    if isinstance(first, list | tuple) and first:
        first = first[0]
    return first.device if isinstance(first, torch.Tensor) else torch.device("cpu")


def _gather_tensors(
    polygons: Any, device: torch.device | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`gather` for objects that are tensors [n, 2] or lists of such tensors: on a GPU, or within torch.compile."""
    objects = [(item,) if isinstance(item, torch.Tensor) else tuple(item) for item in polygons]
    rings = [ring for item in objects for ring in item]
    shapes: list[Sequence[int]] = [ring.shape if isinstance(ring, torch.Tensor) else () for ring in rings]
    if not all(len(shape) == 2 and shape[1] == 2 and shape[0] > 2 for shape in shapes):
        rings = [_as_vertices(ring, i, k) for i, item in enumerate(objects) for k, ring in enumerate(item)]
        shapes = [ring.shape for ring in rings]
    lengths, counts = [0, *(shape[0] for shape in shapes)], [0, *map(len, objects)]
    vertices = _joined(rings)
    if device is not None:
        if vertices.device.type != "cpu" and device.type != vertices.device.type:
            raise ValueError(f"polygons are on {vertices.device}, expected {device}")
        vertices = vertices.to(device)
    if torch.compiler.is_compiling():
        starts = torch.tensor([*accumulate(lengths)], device="cpu"), torch.tensor([*accumulate(counts)], device="cpu")
        return vertices, starts[0].to(vertices.device), starts[1].to(vertices.device)
    if vertices.device.type == "cpu":
        return vertices, _starts(lengths), _starts(counts)
    there = upload((_starts(lengths), _starts(counts)), vertices.device)
    return vertices, there[0], there[1]


def _starts(lengths: list[int]) -> torch.Tensor:
    return torch.from_numpy(np.array(lengths, dtype=np.int64).cumsum())


def _joined(rings: list[torch.Tensor]) -> torch.Tensor:
    """Rings [n, 2] one behind the other as float64: converted together where they have one dtype."""
    if not rings:
        return torch.zeros((0, 2), dtype=torch.float64, device="cpu")
    first = rings[0].dtype
    if any(ring.dtype is not first for ring in rings):  # torch would take a type for all that may hold less
        rings = [ring.to(torch.float64) for ring in rings]
    return torch.cat(rings).to(torch.float64)


def _as_vertices(ring: Any, number: int, place: int) -> torch.Tensor:
    """A ring [n, 2] or flat [2 n] as [n, 2]; its shape, unlike its values, is known without waiting."""
    if not isinstance(ring, torch.Tensor):
        raise ValueError(
            f"polygons[{number}], ring {place} must be a tensor as the first one, got {type(ring).__name__}"
        )
    flat = ring.dim() == 1 and ring.shape[0] % 2 == 0
    if not flat and not (ring.dim() == 2 and ring.shape[1] == 2):
        raise ValueError(f"polygons[{number}], ring {place} must be [n, 2] or flat [2 n], got {list(ring.shape)}")
    vertices = ring.reshape(-1, 2)
    if vertices.shape[0] < 3:
        raise ValueError(f"polygons[{number}], ring {place} has {vertices.shape[0]} vertices, expected at least 3")
    return vertices
