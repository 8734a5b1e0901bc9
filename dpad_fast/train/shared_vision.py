"""Run the vision tower once per distinct image of a batch.

A GRPO batch holds every image G times, and generation, the reference's and the policy's log-probabilities each pass all
copies through the vision tower. The features of equal images are equal, so computing them once and repeating them is
the same function, gradients included.
"""

from __future__ import annotations

from typing import Any

import torch


def share_vision(model: Any) -> bool:
    """Make a Qwen2-VL or Qwen2.5-VL model's vision tower skip repeated images. Calling it again changes nothing.

    Args:
        model: a model with `model.visual`, whose `forward(hidden_states, grid_thw)` takes patches [P, C] of all images
            one after the other, and grids [N, 3] of (frames, rows, columns) in patches.

    Returns:
        Whether the model has such a tower.
    """
    visual = getattr(getattr(model, "model", None), "visual", None)
    merge = getattr(visual, "spatial_merge_size", None)
    if visual is None or merge is None:
        return False
    if getattr(visual, "shares_images", False):
        return True
    plain = visual.forward

    def forward(hidden_states: torch.Tensor, grid_thw: torch.Tensor, **options: Any) -> Any:
        sizes = grid_thw.prod(dim=-1).tolist()  # patches per image
        first, copy_of = distinct_images(hidden_states, grid_thw)
        if len(first) == len(sizes):
            return plain(hidden_states, grid_thw, **options)
        pieces = torch.split(hidden_states, sizes)
        output = plain(torch.cat([pieces[i] for i in first]), grid_thw[first], **options)
        kept = [sizes[i] for i in first]
        output.last_hidden_state = _repeat(output.last_hidden_state, kept, copy_of)
        output.pooler_output = _repeat(output.pooler_output, [size // merge**2 for size in kept], copy_of)
        return output

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


def _repeat(features: torch.Tensor, sizes: list[int], copy_of: list[int]) -> torch.Tensor:
    """Features of the distinct images [sum(sizes), D], laid out for all images."""
    if features.shape[0] != sum(sizes):
        raise ValueError(f"the vision tower returned {features.shape[0]} rows for {sum(sizes)} expected")
    pieces = torch.split(features, sizes)
    return torch.cat([pieces[i] for i in copy_of])
