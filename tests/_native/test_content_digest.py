"""The digest that tells pictures apart: a function of the pixels alone."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from dpad_fast._native import images as module
from dpad_fast._native.images import as_pixels, content_digest, content_digests
from dpad_fast.clip.images import Picture


def _noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_equal_for_whatever_holds_the_same_pixels() -> None:
    for height, width in ((2, 1), (2, 7), (5, 3), (5, 8), (48, 65)):
        array = _noise(height, width)
        image = Image.fromarray(array)
        padded = np.concatenate([array, np.full((height, width, 1), 77, np.uint8)], axis=2)[..., :3]
        holders = [
            torch.from_numpy(array),
            torch.from_numpy(padded),
            as_pixels(image, "image"),
            torch.from_numpy(np.asfortranarray(array)),
            torch.from_numpy(np.concatenate([array, array], axis=1))[:, :width],
            torch.from_numpy(array).permute(2, 0, 1).contiguous().permute(1, 2, 0),
        ]
        assert len({content_digest(pixels) for pixels in holders}) == 1, (height, width)
        assert Picture(image, "a").key == Picture(array, "b").key


def test_copies_of_many_pictures_are_not_held_together(monkeypatch: pytest.MonkeyPatch) -> None:
    planes = [torch.from_numpy(_noise(3, 64, seed)).permute(2, 0, 1).contiguous().permute(1, 2, 0) for seed in range(6)]
    rows = [torch.from_numpy(_noise(9, 64, seed)) for seed in range(6)]
    pictures = [picture for pair in zip(planes, rows, strict=True) for picture in pair]
    expected = [content_digest(picture) for picture in pictures]
    asked: list[int] = []

    def digest(given: list[tuple[int, int, int]], threads: int) -> list[list[int]]:
        addresses = {picture.data_ptr() for picture in pictures}
        asked.append(sum(3 * count for address, count, _ in given if address not in addresses))
        return digest_pictures(given, threads)

    digest_pictures = module.extension.C.digest_pictures
    monkeypatch.setattr(module, "extension", SimpleNamespace(C=SimpleNamespace(digest_pictures=digest)))
    monkeypatch.setattr(module, "_COPIED", 2 * 3 * 64 * 3)
    assert content_digests(pictures, 2) == expected
    assert asked == [1152, 1152, 1152, 0]  # bytes of the copies


def test_what_pads_a_pixel_is_not_looked_at() -> None:
    memory = np.random.default_rng(1).integers(0, 256, (9, 11, 4), dtype=np.uint8)
    other = memory.copy()
    other[..., 3] = ~other[..., 3]
    assert content_digest(torch.from_numpy(memory)[..., :3]) == content_digest(torch.from_numpy(other)[..., :3])


def test_any_changed_bit_and_any_two_pixels_exchanged_give_another_digest() -> None:
    height, width = 7, 13
    array = _noise(height, width)
    seen = {content_digest(torch.from_numpy(array))}
    flat = array.reshape(-1)
    for place in range(flat.size):
        for bit in range(8):
            flat[place] ^= 1 << bit
            seen.add(content_digest(torch.from_numpy(array)))
            flat[place] ^= 1 << bit
    assert len(seen) == 1 + 8 * flat.size
    pixels = array.reshape(-1, 3)
    for place in range(len(pixels) - 1):
        changed = pixels.copy()
        changed[[place, place + 1]] = changed[[place + 1, place]]
        seen.add(content_digest(torch.from_numpy(changed.reshape(array.shape))))
    assert len(seen) == 1 + 8 * flat.size + len(pixels) - 1


def test_each_half_of_the_digest_changes_by_half_its_bits() -> None:
    array = _noise(16, 16)
    base = np.frombuffer(content_digest(torch.from_numpy(array)), np.uint8)
    flips = []
    for place in range(0, array.size, 3):
        array.reshape(-1)[place] ^= 1
        flips.append(np.unpackbits(base ^ np.frombuffer(content_digest(torch.from_numpy(array)), np.uint8)))
        array.reshape(-1)[place] ^= 1
    share = np.mean(flips, axis=0)
    assert abs(share.mean() - 0.5) < 0.01
    assert share.min() > 0.3
    assert share.max() < 0.7


def test_blank_pictures_of_other_sizes_are_told_apart() -> None:
    blank = [torch.zeros(height, width, 3, dtype=torch.uint8) for height, width in ((1, 1), (1, 2), (1, 9), (4, 4))]
    assert len({content_digest(pixels) for pixels in blank}) == len(blank)
    assert Picture(np.zeros((2, 8, 3), np.uint8), "a").key != Picture(np.zeros((8, 2, 3), np.uint8), "b").key
