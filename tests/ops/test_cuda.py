"""The public functions on CUDA tensors: traced with fake ones everywhere, and run where there is a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dpad_fast._native import extension
from dpad_fast.ops import (
    PackedMasks,
    _mask_cuda,
    discriminative_reward,
    group_advantage,
    mask_iou,
    mask_iou_matrix,
    polygon_iou,
    rasterize_polygons,
    roi_clip_preprocess,
)
from dpad_fast.ops import _mask_ops as ops
from dpad_fast.ops._polygon_input import _gather_tensors
from dpad_fast.ops.polygons import RULES, gather

Inputs = dict[str, torch.Tensor]
needs_gpu = pytest.mark.gpu


def inputs(device: str) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    there = {
        "a": torch.rand(3, 20, 70, generator=generator) < 0.5,
        "b": torch.rand(3, 20, 70, generator=generator) < 0.5,
        "rewards": torch.randn(8, 2, generator=generator),
        "ids": torch.arange(8) % 3,
        "weights": torch.tensor([1.0, 0.5]),
        "tokens": torch.rand(8, 5, generator=generator) < 0.7,
        "text": torch.randn(4, 16, generator=generator),
        "rows": torch.tensor([0, 3, -1, 1]),
        "ring": torch.rand(5, 2, generator=generator, dtype=torch.float64) * 60,
        "image": torch.randint(0, 256, (20, 30, 3), generator=generator, dtype=torch.uint8),
    }
    return {name: tensor.to(device) for name, tensor in there.items()}


def everything_of(masks: PackedMasks) -> tuple[torch.Tensor, ...]:
    return masks.to_dense(), masks.area, masks.box, masks.intersection(masks)


# torch.compile is given one call of each public function; boxes are on the host by design.
CALLS: dict[str, Callable[[Inputs], Any]] = {
    "mask_iou": lambda x: mask_iou(x["a"], x["b"], ignore=x["a"][0]),
    "mask_iou, turned": lambda x: mask_iou(x["a"].transpose(1, 2), x["b"].transpose(1, 2)),
    "mask_iou_matrix": lambda x: mask_iou_matrix(x["a"], x["b"], ignore=x["b"]),
    "PackedMasks": lambda x: everything_of(PackedMasks.from_dense(x["a"])),
    "rasterize, packed": lambda x: rasterize_polygons([x["ring"]], 20, 70, rule="opencv").area,
    "rasterize, dense": lambda x: rasterize_polygons([x["ring"], [x["ring"]] * 2], 20, 70, out="dense"),
    "polygon_iou": lambda x: polygon_iou([x["ring"]] * 3, x["a"], rule="center"),
    "group_advantage": lambda x: group_advantage(x["rewards"], x["ids"], weights=x["weights"]),
    "group_advantage, tokens": lambda x: group_advantage(x["rewards"], 4, scale="gdpo", token_mask=x["tokens"]),
    "discriminative_reward": lambda x: discriminative_reward(x["text"], x["text"], x["text"].flip(0), x["rows"]),
    "roi_clip_preprocess": lambda x: roi_clip_preprocess([x["image"]], torch.tensor([[1, 2, 9, 9]]), [0], size=8),
}


def as_tuple(result: Any) -> tuple[torch.Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("name", CALLS)
def test_compiles_into_one_graph_with_fake_cuda_tensors(name: str) -> None:
    torch._dynamo.reset()
    with FakeTensorMode():
        fake = inputs("cuda")
        eager = CALLS[name](fake)
        compiled = torch.compile(CALLS[name], fullgraph=True, backend="aot_eager")(fake)
    for one, other in zip(as_tuple(eager), as_tuple(compiled), strict=True):
        assert one.device.type == other.device.type == "cuda"
        assert (one.shape, one.dtype) == (other.shape, other.dtype)


def test_fakes_say_what_the_cpu_gives() -> None:
    real, mode = inputs("cpu"), FakeTensorMode()
    for name, call in CALLS.items():
        with mode:
            fake = as_tuple(call(inputs("cuda")))
        for one, other in zip(fake, as_tuple(call(real)), strict=True):
            assert (tuple(one.shape), one.dtype) == (tuple(other.shape), other.dtype), name


def test_an_extension_without_cuda_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class WithoutCuda:
        pass

    monkeypatch.setattr(extension, "C", WithoutCuda(), raising=False)
    for call in (
        lambda: _mask_cuda.pack(inputs("cpu")["a"], "masks"),
        lambda: _mask_cuda.draw(*gather_on_host(), 8, 8, "coco"),
    ):
        with pytest.raises(RuntimeError, match=r"need CUDA kernels.*built without them.*DPAD_FAST_CUDA=on"):
            call()


@pytest.mark.skipif(torch.cuda.is_available(), reason="looks at what happens where there is no GPU")
def test_a_launch_without_a_gpu_says_what_cuda_says() -> None:
    if not hasattr(extension.C, "cuda_pack"):
        pytest.skip("the extension was built without CUDA")
    with pytest.raises(RuntimeError, match="mask_pack could not be launched: CUDA says: "):
        extension.C.cuda_pack(0, 1, 2, 3, 0, 0, 0, (0, 0))


def gather_on_host() -> tuple[torch.Tensor, ...]:
    return torch.zeros(3, 2, dtype=torch.float64), torch.tensor([0, 3]), torch.tensor([0, 1])


def test_tensors_on_two_devices_are_refused() -> None:
    a, elsewhere = torch.zeros(2, 3, 4, dtype=torch.bool), torch.zeros(2, 3, 4, dtype=torch.bool, device="meta")
    with pytest.raises(ValueError, match="mask_dense_counts: all tensors must be on one device, got cpu and meta"):
        _mask_cuda.dense_counts(a, elsewhere, None)
    vertices, rings, objects = gather_on_host()
    with pytest.raises(ValueError, match="polygon_draw: all tensors must be on one device, got cpu and meta"):
        _mask_cuda._polygons("polygon_draw", vertices, rings.to("meta"), objects)
    with FakeTensorMode(), pytest.raises(ValueError, match="polygons are on cuda:0, expected cpu"):
        polygon_iou([torch.zeros(4, 2, device="cuda")], torch.zeros(1, 4, 5, dtype=torch.bool))


def test_rings_on_a_gpu_are_checked_by_their_shapes() -> None:
    with FakeTensorMode():
        good = torch.zeros(4, 2, device="cuda")
        for bad, message in (
            ([good, good[:2]], r"polygons\[1\], ring 0 has 2 vertices, expected at least 3"),
            ([[good, torch.zeros(3, 3, device="cuda")]], r"polygons\[0\], ring 1 must be \[n, 2\] or flat \[2 n\]"),
            ([good, [[(0, 0), (1, 1), (2, 0)]]], r"polygons\[1\], ring 0 must be a tensor as the first one, got list"),
        ):
            with pytest.raises(ValueError, match=message):
                gather(bad)


def test_rings_of_several_types_keep_their_values() -> None:
    """torch would join whole numbers and float32 as float32, which holds none beyond 2**24."""
    far = torch.tensor([[2**24 + 1, 0], [3, 5], [7, 9]])
    rings = [far.float(), far, far.double().flatten()]
    for joined in (rings, [far] * 2, [far.float()] * 2):
        vertices, starts, objects = _gather_tensors([joined[0], joined[1:]])
        assert torch.equal(vertices, torch.cat([ring.reshape(-1, 2).double() for ring in joined]))
        assert vertices.dtype == torch.float64
        assert starts.tolist() == [3 * i for i in range(len(joined) + 1)]
        assert objects.tolist() == [0, 1, len(joined)]


def test_host_polygons_are_checked_before_they_go_up() -> None:
    with pytest.raises(ValueError, match=r"polygons\[0\], ring 0: vertex 1 has the coordinate nan"):
        rasterize_polygons([[(0, 0), (float("nan"), 1), (2, 2)]], 8, 8, device="cuda")
    masks = PackedMasks.from_dense(np.zeros((2, 4, 5), bool))
    assert masks.to("cpu") is masks


def same(got: Any, expected: Any) -> None:
    for one, other in zip(as_tuple(got), as_tuple(expected), strict=True):
        assert one.is_cuda
        torch.testing.assert_close(one.cpu(), other, rtol=1e-6, atol=1e-6, equal_nan=True)


@needs_gpu
@pytest.mark.parametrize("name", CALLS)
def test_gpu_agrees_with_cpu(name: str) -> None:
    same(CALLS[name](inputs("cuda")), CALLS[name](inputs("cpu")))


@needs_gpu
@pytest.mark.parametrize("name", CALLS)
def test_gpu_on_another_stream(name: str) -> None:
    stream, there = torch.cuda.Stream(), inputs("cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        got = CALLS[name](there)
    stream.synchronize()
    same(got, CALLS[name](inputs("cpu")))


@needs_gpu
@pytest.mark.parametrize("size", [(1, 1), (5, 63), (70, 65), (17, 129), (480, 640)], ids="{0[0]}x{0[1]}".format)
def test_gpu_masks_and_polygons_in_every_bit(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(size)
    a, b, ignore = (torch.from_numpy(rng.random((5, *size)) < 0.5) for _ in range(3))
    flat = gather([(rng.random((7, 2)) - 0.2) * 1.5 * size[::-1] for _ in range(5)])
    on_gpu = [tensor.cuda() for tensor in (a, b, ignore, *flat)]
    packed = PackedMasks.from_dense(on_gpu[0])
    same(tuple(packed.parts), ops.pack(a, "masks"))
    same(packed.to_dense(), a)
    same(ops.dense_counts(*on_gpu[:3]), ops.dense_counts(a, b, ignore))
    for matrix in (False, True):
        parts = [list(ops.pack(mask, "masks")) for mask in on_gpu[:3]]
        host = [list(ops.pack(mask, "masks")) for mask in (a, b, ignore)]
        same(ops.packed_counts(*parts, size[1], matrix), ops.packed_counts(*host, size[1], matrix))
    for rule in RULES:
        same(ops.draw(*on_gpu[3:], *size, rule), ops.draw(*flat, *size, rule))
        same(ops.draw_dense(*on_gpu[3:], *size, rule), ops.draw_dense(*flat, *size, rule))
        counts = ops.polygon_counts(*on_gpu[3:], parts[0], None, parts[2], size[1], rule)
        same(counts, ops.polygon_counts(*flat, host[0], None, host[2], size[1], rule))


def check_every_op(device: str) -> None:
    """With arguments as the public functions give them."""
    x = inputs(device)
    packed = PackedMasks.from_dense(x["a"])
    flat = gather([x["ring"]] * 3)
    counts = ops.dense_counts(x["a"], x["b"], None)
    check = torch.library.opcheck
    check(ops.dense_counts, (x["a"], x["b"], x["a"][0]))
    check(ops.dense_matrix_counts, (x["a"], x["b"]))
    check(ops.ratio, (*counts, 0.5))
    check(ops.pack, (x["a"].transpose(1, 2), "masks"))
    check(ops.unpack, (packed.words, 70))
    check(ops.measure, (packed.words, 70))
    for matrix in (False, True):
        check(ops.packed_counts, (packed.parts, packed.parts, packed[:1].parts, 70, matrix))
    check(ops.draw, (*flat, 20, 70, "coco"))
    check(ops.draw_dense, (*flat, 20, 70, "opencv"))
    check(ops.polygon_counts, (*flat, packed.parts, None, [], 70, "center"))
    registered = torch.ops.dpad_fast
    check(registered.mask_read.default, (x["rewards"], 0.5, "masks"))
    check(registered.group_advantage.default, (x["rewards"], x["ids"], 0, "std", 1e-4, x["weights"], None, False))
    check(registered.group_advantage.default, (x["rewards"], None, 4, "gdpo", 1e-4, None, x["tokens"], True))
    rows = x["rows"].clamp(min=0)  # where there is nothing to compare is NaN, which equals nothing
    check(registered.discriminative_reward.default, (x["text"], x["text"], x["text"], rows, "margin", 1.0, 0.5))
    regions = torch.tensor([[1, 2, 9, 9]]), torch.tensor([0])
    options = (8, "shortest", "bicubic", "floor", "pillow-13", [0.5] * 3, [0.25] * 3)
    check(registered.roi_clip_preprocess.default, ([x["image"]], *regions, *options, torch.float32))
    out = torch.empty(1, 3, 8, 8, device=device)
    check(registered.roi_clip_preprocess_out.default, ([x["image"]], *regions, *options, out))


@pytest.mark.filterwarnings("ignore")
def test_opcheck() -> None:
    check_every_op("cpu")


@needs_gpu
@pytest.mark.filterwarnings("ignore")
def test_gpu_opcheck() -> None:
    check_every_op("cuda")


@needs_gpu
@pytest.mark.parametrize("name", [name for name in CALLS if name not in ("roi_clip_preprocess",)])
def test_gpu_graphs(name: str) -> None:
    """Captured once and replayed on new contents of the same memory."""
    there, graph = inputs("cuda"), torch.cuda.CUDAGraph()
    call = CALLS[name]
    if name.startswith(("rasterize", "polygon")):  # building the starts copies from the host, so that stays outside
        flat = gather([there["ring"]] * 3)
        packed = PackedMasks.from_dense(there["a"])

        def call(x: Inputs) -> Any:
            return (*ops.draw(*flat, 20, 70, "coco"), *ops.polygon_counts(*flat, packed.parts, None, [], 70, "opencv"))

    expected = [tensor.clone() for tensor in as_tuple(call(there))]
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        got = call(there)
    graph.replay()
    torch.cuda.synchronize()
    for one, other in zip(as_tuple(got), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
