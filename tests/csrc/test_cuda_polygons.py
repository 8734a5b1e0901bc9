"""The bodies of the CUDA polygon launchers, played on the host, against the CPU ops: equal in every pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dpad_fast.ops import PackedMasks, _mask_cuda
from dpad_fast.ops import _mask_ops as cpu
from dpad_fast.ops.polygons import RULES, gather
from dpad_fast.testing import poisoned_memory

Flat = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
KINDS = ["as it is", "as it is", "as it is", "collinear", "repeated", "flat", "upright", "point"]


def ring_of(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A ring, random, on a grid, collinear, repeated or axis-parallel, near or far out; most cross themselves."""
    middle, spread = np.array([width, height]), rng.choice([0.3, 1.0, 1.3, 3.0, 30.0, 1e4])
    ring = (rng.random((rng.integers(3, 10), 2)) - 0.5) * middle * spread + middle * rng.random(2)
    step = rng.choice([0.0, 0.0, 0.5, 1.0, 3.0])
    ring = np.round(ring / step) * step if step else ring
    kind = rng.choice(KINDS)
    if kind == "collinear":
        ring = ring[0] + np.linspace(0, 1, len(ring))[:, None] * (ring[1] - ring[0])
    if kind == "repeated":
        ring = np.repeat(ring, 2, axis=0)
    if kind in ("flat", "upright"):
        ring[:, int(kind == "flat")] = ring[0, int(kind == "flat")]
    if kind == "point":
        ring[:] = ring[0]
    return np.clip(ring, -9e6, 9e6)


def scene(seed: int) -> tuple[Flat, int, int]:
    """Up to 3 objects of up to 3 rings, on images of one to several bands."""
    rng = np.random.default_rng(seed)
    height, width = (int(rng.choice([1, 5, 64, 65, 90, 200, rng.integers(1, 130)])) for _ in range(2))
    objects = [[ring_of(rng, height, width) for _ in range(rng.integers(1, 4))] for _ in range(rng.integers(1, 4))]
    return gather(objects), height, width


def check(flat: Flat, height: int, width: int, rule: str) -> None:
    with poisoned_memory():
        words, area, box = _mask_cuda.draw(*flat, height, width, rule)
        dense = _mask_cuda.draw_dense(*flat, height, width, rule)
    expected = cpu.draw(*flat, height, width, rule)
    assert torch.equal(words, expected[0])
    assert torch.equal(area, expected[1])
    assert torch.equal(box, expected[2])
    assert torch.equal(dense, cpu.draw_dense(*flat, height, width, rule))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("corners", [3, 17, 40, 130, 300])
def test_objects_of_a_few_bands(launchers, rule: str, corners: int) -> None:
    """Rings that begin and end at or near the rows between bands, so that most bands are blank, in 8 bands of 60."""
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    outline = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    objects = [
        [outline * [90, height / 2] + [320, top + height / 2]]
        for top, height in (
            (-9, 8.5),
            (-1, 61),
            (59.5, 0.4),
            (60, 60),
            (60.5, 59),
            (119, 1),
            (119.99, 2),
            (479.5, 9),
            (490, 9),
        )
    ]
    check(gather(objects), 480, 640, rule)
    check(gather([[ring for rings in objects for ring in rings]]), 480, 640, rule)


@pytest.mark.parametrize("rule", RULES)
def test_random_scenes(launchers, rule: str) -> None:
    for seed in range(240):
        launchers.set_stride((1, -1, 37)[seed % 3])
        check(*scene(seed), rule)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [(2, 65535), (65535, 2), (480, 640), (7, 8000)])
def test_long_sides(launchers, rule: str, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(7)
    flat = gather([rng.random((6, 2)) * size[::-1], [(rng.random((5, 2)) - 0.2) * 2 * size[::-1] for _ in range(2)]])
    check(flat, *size, rule)


@pytest.mark.usefixtures("thread_order")
@pytest.mark.parametrize("rule", RULES)
def test_rings_longer_than_a_warp_shares(rule: str) -> None:
    rng = np.random.default_rng(3)
    turn = np.linspace(0, 2 * np.pi, 5000, endpoint=False)
    star = np.stack([np.cos(turn), np.sin(turn)], 1) * (20 + 60 * rng.random((len(turn), 1))) + (90, 70)
    check(gather([star, [star[:257], star[:300] + 9]]), 150, 200, rule)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("ignoring", ["none", "one", "each"])
def test_counts_against_masks(launchers, rule: str, ignoring: str) -> None:
    for seed in range(30):
        launchers.set_stride((1, -1, 37)[seed % 3])
        flat, height, width = scene(1000 + seed)
        rng, n = np.random.default_rng(seed), flat[2].shape[0] - 1
        truth = PackedMasks.from_dense(rng.random((4, height, width)) < 0.5)
        hidden = PackedMasks.from_dense(rng.random((1 if ignoring == "one" else 4, height, width)) < 0.3)
        skip = [] if ignoring == "none" else hidden.parts
        index = torch.from_numpy(rng.integers(0, 4, n))
        with poisoned_memory():
            got = _mask_cuda.polygon_counts(*flat, truth.parts, index, skip, width, rule)
        expected = cpu.polygon_counts(*flat, truth.parts, index, skip, width, rule)
        assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))
    truth = truth[:n]
    skip = [] if ignoring == "none" else (hidden if ignoring == "one" else hidden[:n]).parts
    got = _mask_cuda.polygon_counts(*flat, truth.parts, None, skip, width, rule)
    expected = cpu.polygon_counts(*flat, truth.parts, None, skip, width, rule)
    assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))


@pytest.mark.usefixtures("launchers")
@pytest.mark.parametrize("rule", RULES)
def test_what_only_the_gpu_could_find_wrong_is_empty(rule: str) -> None:
    """Bad values must not hang, crash or touch other memory, and their neighbours are drawn as alone."""
    square = [(1.0, 1.0), (9.0, 1.0), (9.0, 9.0), (1.0, 9.0)]
    for value in (float("nan"), float("inf"), -float("inf"), 1e9, -1.1e7):
        vertices = torch.tensor([*square, (1.0, value), *square[1:], *square], dtype=torch.float64)
        starts = torch.tensor([0, 4, 8, 12]), torch.tensor([0, 1, 2, 3])
        area = _mask_cuda.draw(vertices, *starts, 12, 12, rule)[1]
        assert area[0] == area[2] > 60
        assert area[1] == 0
    vertices = torch.tensor(square, dtype=torch.float64)
    truth = PackedMasks.from_dense(np.ones((2, 12, 12), bool))
    one = vertices, torch.tensor([0, 4]), torch.tensor([0, 1])
    for index in (-1, 2, 2**40):
        counts = _mask_cuda.polygon_counts(*one, truth.parts, torch.tensor([index]), [], 12, rule)
        assert [int(count) for count in counts] == [0, 0]
    for rings, objects in (
        ([0, 99], [0, 1]),
        ([-5, 4], [0, 1]),
        ([0, 4], [0, 99]),
        ([4, 0], [-3, 1]),
        ([0, 4], [1, 0]),
    ):
        area = _mask_cuda.draw(vertices, torch.tensor(rings), torch.tensor(objects), 12, 12, rule)[1]
        assert 0 <= int(area[0]) <= 144
    hidden = torch.cat([vertices, torch.full((4, 2), float("nan"), dtype=torch.float64)])
    area = _mask_cuda.draw(hidden, torch.tensor([0, 8, 4]), torch.tensor([0, 2]), 12, 12, rule)[1]
    assert int(area[0]) == 0  # starts that fall: the first ring reaches behind the object's last


@pytest.mark.usefixtures("launchers")
def test_nothing_at_all() -> None:
    for objects, size in (([], (4, 5)), ([[]], (4, 5)), ([[(0, 0), (5, 0), (5, 4)]], (0, 5)),
                          ([[(0, 0), (5, 0), (5, 4)]], (4, 0))):  # fmt: skip
        for rule in RULES:
            check(gather(objects) if objects != [[]] else _without_rings(), *size, rule)


def _without_rings() -> Flat:
    return torch.zeros((0, 2), dtype=torch.float64), torch.tensor([0]), torch.tensor([0, 0])


@pytest.mark.usefixtures("launchers")
def test_bad_tensors_are_named() -> None:
    flat = gather([[(0, 0), (5, 0), (5, 4)]])
    with pytest.raises(ValueError, match=r"polygon_draw: vertices must be torch\.float64, got torch\.float32"):
        _mask_cuda.draw(flat[0].float(), *flat[1:], 4, 5, "coco")


def test_a_failed_launch_says_what_cuda_says(launchers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_mask_cuda, "_stream", lambda device: (3, 0))
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        _mask_cuda.pack(torch.zeros(1, 2, 3, dtype=torch.bool), "masks")


@pytest.mark.usefixtures("launchers")
def test_a_rule_that_there_is_not_is_refused() -> None:
    one = (
        torch.tensor([(1.0, 1.0), (9.0, 1.0), (9.0, 9.0)], dtype=torch.float64),
        torch.tensor([0, 3]),
        torch.tensor([0, 1]),
    )
    with pytest.raises(RuntimeError, match="none of coco, opencv and center"):
        _mask_cuda.draw(*one, 12, 12, "svg")
