"""What may stand in a dense mask: bool, 0 and 1, or any numbers with a threshold; all else is named, never counted."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dpad_fast.ops import PackedMasks, _mask_ops, _mask_values, mask_iou, mask_iou_matrix, polygon_iou
from dpad_fast.reference import masks as reference

RNG = np.random.default_rng(7)
A, B = (RNG.random((4, 20, 70)) < 0.5 for _ in range(2))
DTYPES = [
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
]
TRIANGLE = [0, 0, 60, 0, 60, 19]


def with_value(dtype, value, device="cpu"):
    masks = torch.from_numpy(A.copy()).to(dtype)
    masks[2, 5, 66] = value
    return masks.to(device)


# Each passes the masks under test as the argument `name`.
FRONTS = {
    "mask_iou, a": ("a", lambda x: mask_iou(x, A)),
    "mask_iou, b": ("b", lambda x: mask_iou(A, x)),
    "mask_iou, packed": ("a", lambda x: mask_iou(x, PackedMasks.from_dense(A))),
    "mask_iou, ignore": ("ignore", lambda x: mask_iou(A, B, ignore=x)),
    "mask_iou, packed, ignore": ("ignore", lambda x: mask_iou(PackedMasks.from_dense(A), B, ignore=x)),
    "mask_iou_matrix, a": ("a", lambda x: mask_iou_matrix(x, A)),
    "mask_iou_matrix, b": ("b", lambda x: mask_iou_matrix(A, x)),
    "mask_iou_matrix, ignore": ("ignore", lambda x: mask_iou_matrix(A, B, ignore=x)),
    "from_dense": ("masks", PackedMasks.from_dense),
    "polygon_iou": ("masks", lambda x: polygon_iou([TRIANGLE] * 4, x)),
    "polygon_iou, ignore": ("ignore", lambda x: polygon_iou([TRIANGLE] * 4, A, ignore=x)),
}


@pytest.mark.parametrize("front", FRONTS)
def test_other_values_are_named(front):
    name, call = FRONTS[front]
    for dtype in DTYPES:
        call(torch.from_numpy(A).to(dtype))
        values = [2, 127] if dtype == torch.int8 else [2, 100]
        if dtype.is_floating_point:
            values += [0.5, 1e-6, -3.25, float("inf")]
        if dtype.is_signed:
            values.append(-1)
        for value in values:
            bad = with_value(dtype, value)
            found = str(bad[2, 5, 66].item()).replace("+", "[+]")
            with pytest.raises(
                ValueError, match=rf"^{name}\[2, 5, 66\] is {found}; expected 0 and 1: compare first, as"
            ):
                call(bad)
        if dtype.is_floating_point:
            with pytest.raises(ValueError, match=rf"^{name}\[2, 5, 66\] is nan; a mask has no NaN"):
                call(with_value(dtype, float("nan")))


def test_what_255_means_is_asked():
    """255 is ReasonSeg's ignored pixel or a PNG's white one: neither may count as target without a threshold."""
    with pytest.raises(
        ValueError, match=r"a\[2, 5, 66\] is 255; expected 0 and 1: compare first, as masks != 0 or mask"
    ):
        mask_iou(with_value(torch.uint8, 255), B)
    with pytest.raises(ValueError, match=r"masks\[1\]\[0, 0\] is 255"):
        PackedMasks.from_dense([A[0], np.full((20, 70), 255, np.uint8)])


@pytest.mark.parametrize("dtype", [">i4", ">f8", np.longdouble, np.uint16, np.uint64, np.float16])
def test_arrays_are_looked_at_too(dtype):
    bad = A.astype(dtype)
    assert mask_iou(bad, B).tolist() == reference.mask_iou(A, B).tolist()
    bad[1, 2, 3] = 7
    for array in (bad, bad[:, ::-1][:, ::-1], np.asfortranarray(bad)):
        with pytest.raises(ValueError, match=r"a\[1, 2, 3\] is 7(\.0)?; expected 0 and 1"):
            mask_iou(array, B)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("turned", [False, True])
def test_a_threshold_reads_numbers(dtype, turned):
    rng = np.random.default_rng(3)
    if dtype.is_floating_point:
        values = torch.from_numpy(rng.normal(size=(4, 20, 70))).to(dtype)
        thresholds = (0.0, -0.75, 0.5)
    else:
        values = torch.from_numpy(rng.integers(0, 120, (4, 20, 70))).to(dtype)
        thresholds = (0, 60, 60.5)
    if turned:
        values = values.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    for threshold in thresholds:
        above = values.detach().double().numpy() > threshold
        for masks in (values, values.requires_grad_(dtype.is_floating_point)):
            got = mask_iou(masks, B, threshold=threshold)
            assert got.tolist() == reference.mask_iou(above, B).tolist()
            assert not got.requires_grad
        packed = PackedMasks.from_dense(values.detach(), threshold=threshold)
        assert torch.equal(packed.to_dense(), torch.from_numpy(above))
        assert torch.equal(PackedMasks.from_dense(list(values.detach()), threshold=threshold).words, packed.words)
        matrix = mask_iou_matrix(B, values, threshold=threshold)
        assert matrix.tolist() == reference.mask_iou_matrix(B, above).tolist()
        assert mask_iou_matrix(B, values, threshold=threshold, crowd=[0, 1, 0, 0]).shape == (4, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mask_iou(A, B, threshold=float("nan")), "threshold must be finite, got nan"),
        (
            lambda: mask_iou(with_value(torch.float32, float("nan")), B, threshold=0.5),
            r"a\[2, 5, 66\] is nan; a mask has",
        ),
        (
            lambda: mask_iou(A, B.astype(np.uint8), threshold=-0.5),
            "b holds integers, so threshold must not be negative",
        ),
        (
            lambda: mask_iou(A, B.astype(np.int64), threshold=127),
            "b holds only 0 and 1, of which none is above threshold",
        ),
        (lambda: mask_iou(torch.from_numpy(A) * 1j, B), "a must hold real numbers, got torch.complex64"),
        (lambda: mask_iou_matrix(A, B, crowd=[0, 2, 0, 1]), r"crowd\[1\] is 2; expected 0 and 1"),
        (lambda: mask_iou_matrix(A, B, crowd=[0.0, float("nan"), 0, 1]), r"crowd\[1\] is nan"),
        (lambda: mask_iou_matrix(A, B, crowd=np.array([0, 0, 0, 0.5])), r"crowd\[3\] is 0.5"),
    ],
)
def test_thresholds_and_flags_that_do_not_suit_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bool_masks_are_not_looked_at(monkeypatch):
    """Such masks take the fast path: they are neither compared nor copied."""
    for module, name in ((_mask_ops, "check_bytes"), (_mask_values, "_compared"), (_mask_values, "_read")):
        monkeypatch.delattr(module, name)
    masks = torch.from_numpy(A)
    assert _mask_values.as_bytes("a", masks) is masks
    assert mask_iou(A, A).tolist() == [1.0] * 4


@pytest.mark.parametrize("front", FRONTS)
def test_bytes_are_looked_at_while_they_are_read(front, monkeypatch):
    """Only a byte that is neither 0 nor 1 is looked for a second time."""
    for module, name in ((_mask_ops, "check_bytes"), (_mask_values, "_compared"), (_mask_values, "_read")):
        monkeypatch.delattr(module, name)
    masks = torch.from_numpy(A.astype(np.uint8))
    assert _mask_values.as_bytes("a", masks) is masks
    FRONTS[front][1](masks)
    with pytest.raises(NameError, match="check_bytes"):
        FRONTS[front][1](with_value(torch.uint8, 2))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
@pytest.mark.parametrize("size", [(1, 1), (3, 63), (2, 65), (7, 130), (480, 640)])
def test_a_byte_is_found_wherever_it_stands(size, dtype):
    height, width = size
    threads = torch.get_num_threads()
    for place in {(0, 0, 0), (1, height // 2, width // 3), (2, height - 1, 0), (2, height - 1, width - 1)}:
        masks = torch.zeros((3, *size), dtype=dtype)
        masks[place] = -1 if dtype == torch.int8 else 255
        where = ", ".join(map(str, place))
        for number in (1, 2):
            torch.set_num_threads(number)
            try:
                for function in (mask_iou, mask_iou_matrix):
                    with pytest.raises(ValueError, match=rf"^a\[{where}\] is {masks[place]}; expected 0 and 1"):
                        function(masks, masks)
            finally:
                torch.set_num_threads(threads)


def test_the_place_in_an_ignored_mask_is_that_of_the_argument():
    bad = with_value(torch.uint8, 3)[2]
    for ignore, place in ((bad, r"\[5, 66\]"), (bad[None], r"\[0, 5, 66\]")):
        for a in (A, PackedMasks.from_dense(A)):
            with pytest.raises(ValueError, match=rf"^ignore{place} is 3; expected 0 and 1"):
                mask_iou(a, B, ignore=ignore)


def test_other_bytes_of_bool_masks_are_set():
    """A view as bool may hold them; beside bytes, which are looked at, they are no error either."""
    odd = torch.from_numpy(A.astype(np.uint8) * 7).view(torch.bool)
    assert torch.equal(mask_iou(odd, B.astype(np.uint8)), mask_iou(A, B))
    assert torch.equal(mask_iou_matrix(odd, B.astype(np.uint8)), mask_iou_matrix(A, B))


def test_registration():
    for dtype in (torch.uint8, torch.float32):
        masks = torch.from_numpy(A).to(dtype)
        for args in ((masks, None, "a"), (masks, 0.5, "a"), (masks.transpose(1, 2), 0.5, "a")):
            torch.library.opcheck(_mask_values._read, args)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_compiles_into_one_graph(dtype):
    torch._dynamo.reset()

    def call(x, y):
        packed = PackedMasks.from_dense(x)
        return mask_iou(x, y, ignore=y[0]), mask_iou(x, y, threshold=0.5), mask_iou_matrix(packed, y), packed.area

    a, b = (torch.from_numpy(masks).to(dtype) for masks in (A, B))
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for got, expected in zip(compiled(a, b), call(torch.from_numpy(A), torch.from_numpy(B)), strict=True):
        assert torch.equal(got, expected)
    if dtype != torch.bool:
        with pytest.raises(ValueError, match=r"\[2, 5, 66\] is 2"):
            compiled(with_value(dtype, 2), b)


def test_on_a_gpu_floats_need_a_threshold():
    with FakeTensorMode():
        logits = torch.empty(4, 20, 70, device="cuda")
        with pytest.raises(ValueError, match=r"a must be bool or integers on a GPU.*got torch.float32: compare first"):
            mask_iou(logits, logits)
        assert mask_iou(logits, logits, threshold=0.0).shape == (4,)
        for dtype in (torch.uint8, torch.int64):
            assert mask_iou(logits.to(dtype), logits > 0).device.type == "cuda"


@pytest.mark.parametrize("threshold", ["0.5", True, 10**400, [0.5, 0.5], torch.tensor([0.5, 0.5]), 1j])
def test_a_threshold_that_is_no_number(threshold):
    for masks in (A, A.astype(np.float32), A.astype(">i4")):
        with pytest.raises(ValueError, match=r"^threshold must be finite, got"):
            mask_iou(masks, B, threshold=threshold)


@pytest.mark.parametrize("threshold", [np.float32(0.5), torch.tensor(0.5), np.array(0.5)])
def test_a_threshold_of_any_library(threshold):
    for masks in (A.astype(np.float32), A.astype(">f4"), A.astype(np.longdouble), torch.from_numpy(A).to(torch.uint8)):
        assert torch.equal(mask_iou(masks, B, threshold=threshold), mask_iou(A, B))


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2])
def test_a_threshold_on_types_that_torch_does_not_order(dtype):
    values = torch.from_numpy(A.astype(np.float32) * 3).to(dtype)
    assert torch.equal(mask_iou(values, B, threshold=1), mask_iou(A, B))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_a_threshold_on_integers_beyond_float32(dtype):
    values = torch.where(torch.from_numpy(A), 2**24 + 1, 2**24).to(dtype)
    assert torch.equal(mask_iou(values, B, threshold=2**24), mask_iou(A, B))


def test_entries_that_are_left_out_of_a_masked_array():
    with pytest.raises(ValueError, match=r"^a is a masked array with entries left out"):
        mask_iou(np.ma.array(A, mask=B), B)
    assert torch.equal(mask_iou(np.ma.array(A), B), mask_iou(A, B))


@pytest.mark.parametrize(
    "boxes", [[["1", "2", "3", "4"]], "x", [[1, 2, 3, None]], [[1, 2, 3, 4], [1]], [[1j, 2, 3, 4]]]
)
def test_boxes_that_are_no_numbers(boxes):
    with pytest.raises(ValueError, match=r"^boxes must "):
        PackedMasks.from_boxes(boxes, 4, 4)
