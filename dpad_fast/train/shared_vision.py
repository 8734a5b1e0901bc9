"""Run the vision tower once per distinct image of a batch.

A GRPO batch holds every image G times, and generation, the reference's and the policy's log-probabilities each pass all
copies through the vision tower. The features of equal images are equal, so computing them once and repeating them is
the same function, gradients included.
"""

from __future__ import annotations

import inspect
from collections.abc import MutableMapping
from typing import Any

import torch

from dpad_fast.train.families import find_vision_tower


class _Untellable(Exception):
    """A part of the tower's output that cannot be assigned to an image."""


def share_vision(model: Any) -> bool:
    """Make a vision tower of the Qwen-VL kind skip repeated images. Calling it again changes nothing.

    Whatever the tower returns is laid out for all images again: `last_hidden_state`, `pooler_output`, Qwen3-VL's
    `deepstack_features`, hidden states that were asked for. Where an output has a part that belongs to no image that
    can be told (attention weights, say), the tower runs on all images, as it would have without this function.

    Args:
        model: a model whose tower (see `families.find_vision_tower`) has a `spatial_merge_size` and a
            `forward(hidden_states, grid_thw)` that takes patches [P, C] of all images one after the other, and grids
            [N, 3] of (frames, rows, columns) in patches. Qwen2-VL, Qwen2.5-VL, Qwen3-VL and GLM-4V have one.

    Returns:
        Whether the model has such a tower.
    """
    visual = find_vision_tower(model)
    merge = getattr(visual, "spatial_merge_size", None)
    if visual is None or not isinstance(merge, int):
        return False
    if getattr(visual, "shares_images", False):
        return True
    plain = visual.forward
    if list(inspect.signature(plain).parameters)[:2] != ["hidden_states", "grid_thw"]:
        return False

    def forward(hidden_states: torch.Tensor, grid_thw: torch.Tensor, **options: Any) -> Any:
        if any(isinstance(option, torch.Tensor) for option in options.values()):  # positions made ahead, of all images
            return plain(hidden_states, grid_thw, **options)
        sizes = grid_thw.prod(dim=-1).tolist()  # patches per image
        first, copy_of = distinct_images(hidden_states, grid_thw)
        if len(first) == len(sizes):
            return plain(hidden_states, grid_thw, **options)
        pieces = torch.split(hidden_states, sizes)
        output = plain(torch.cat([pieces[i] for i in first]), grid_thw[first], **options)
        kept = [sizes[i] for i in first]
        try:
            return _repeat(output, [kept, [size // merge**2 for size in kept]], copy_of)
        except _Untellable:
            return plain(hidden_states, grid_thw, **options)

    visual.forward = forward
    visual.shares_images = True
    return True


def distinct_images(patches: torch.Tensor, grids: torch.Tensor) -> tuple[list[int], list[int]]:
    """Find the images of a batch that are equal.

    Args:
        patches: [P, C], the patches of all images one after the other.
        grids: [N, 3], frames, rows and columns of each image in patches.

    Returns:
        The indices of the first copy of every distinct image, and for each of the N images which of those it equals.
    """
    sizes = grids.prod(dim=-1).tolist()
    seen: dict[tuple[bytes, tuple[int, ...]], int] = {}
    first: list[int] = []
    copy_of: list[int] = []
    shapes = [tuple(grid) for grid in grids.tolist()]
    for index, piece in enumerate(torch.split(patches.detach().cpu().float(), sizes)):
        key = (piece.numpy().tobytes(), shapes[index])  # compared in full, so no collision can mix images up
        if key not in seen:
            seen[key] = len(first)
            first.append(index)
        copy_of.append(seen[key])
    return first, copy_of


def _repeat(output: Any, layouts: list[list[int]], copy_of: list[int]) -> Any:
    """The tower's output for the distinct images, laid out for all images.

    Args:
        output: tensors [rows, ...], in lists, tuples and mappings.
        layouts: the ways in which rows can belong to the distinct images: rows per image, by patches or merged tokens.
        copy_of: for each image, which distinct one it equals.

    Raises:
        _Untellable: for a tensor whose first dimension is none of the layouts, or anything that holds no tensors.
    """
    if output is None:
        return None
    if isinstance(output, torch.Tensor):
        rows = next((rows for rows in layouts if output.dim() and output.shape[0] == sum(rows)), None)
        if rows is None:
            raise _Untellable
        pieces = torch.split(output, rows)
        return torch.cat([pieces[i] for i in copy_of])
    if isinstance(output, MutableMapping):  # transformers' ModelOutput is one; in place, so that it stays what it is
        for key, value in list(output.items()):
            output[key] = _repeat(value, layouts, copy_of)
        return output
    if type(output) in (list, tuple):
        return type(output)(_repeat(value, layouts, copy_of) for value in output)
    raise _Untellable
