"""Memory of large outputs that is kept between calls: bounded, never shared by two results, safe after a fork."""

import gc
import io
import itertools
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from dpad_fast._native.memory import LARGE, new_output
from dpad_fast.ops import PackedMasks, kept_memory, limit_kept_memory, rasterize_polygons, roi_clip_preprocess

MIB = 1 << 20


@pytest.fixture(autouse=True)
def own_limit():
    """A limit of 64 MiB with nothing kept before; the machine's own limit again afterwards."""
    gc.collect()
    before = kept_memory().limit
    limit_kept_memory(0)
    limit_kept_memory(64 * MIB)
    yield
    limit_kept_memory(before)


def bytes_of(size, value=None):
    out = new_output((size,), torch.uint8)
    return out if value is None else out.fill_(value)


def test_small_outputs_are_torch_s_own():
    del_me = bytes_of(LARGE - 1)
    del del_me
    assert kept_memory().kept == 0


def test_a_dead_output_serves_the_next_call_of_about_its_size():
    out = bytes_of(9 * MIB + 5, 7)
    assert kept_memory().kept == 0
    assert out.data_ptr() % (2 * MIB) == 0
    address = out.data_ptr()
    view = out[100:200]
    del out
    assert kept_memory().kept == 0  # a view holds it
    del view
    assert kept_memory().kept == 10 * MIB
    small = bytes_of(4 * MIB)  # of less than half: it would hold all of it
    assert small.data_ptr() != address
    again = bytes_of(8 * MIB)
    assert again.data_ptr() == address
    assert kept_memory().kept == 0


def test_kept_memory_never_exceeds_the_limit():
    outputs = [bytes_of(20 * MIB, i) for i in range(5)]
    while outputs:
        outputs.pop()
        assert kept_memory().kept <= 64 * MIB
    assert kept_memory().kept == 60 * MIB
    large = bytes_of(70 * MIB)  # makes room first, so that memory does not peak
    assert kept_memory().kept == 0
    del large
    assert kept_memory().kept == 0  # beyond the limit by itself
    bytes_of(30 * MIB), bytes_of(62 * MIB)
    assert kept_memory().kept <= 64 * MIB
    limit_kept_memory(0)
    assert kept_memory() == (0, 0)
    bytes_of(8 * MIB)
    assert kept_memory().kept == 0


def test_of_equal_blocks_the_last_one_comes_back_first():
    outputs = [bytes_of(LARGE) for _ in range(3)]
    addresses = [out.data_ptr() for out in outputs]
    while outputs:
        outputs.pop(0)
    assert [bytes_of(LARGE).data_ptr() for _ in range(2)] == [addresses[2]] * 2


def test_more_than_is_kept_unmarked():
    limit_kept_memory(512 * MIB)
    outputs = [bytes_of(160 * MIB, i) for i in range(2)]
    addresses = {out.data_ptr() for out in outputs}
    outputs.clear()  # the second one is marked as free, as more than 256 MiB are kept
    assert kept_memory().kept == 320 * MIB
    outputs = [bytes_of(160 * MIB, i + 5) for i in range(2)]
    assert {out.data_ptr() for out in outputs} == addresses
    for i, out in enumerate(outputs):
        assert bool((out == i + 5).all())


@pytest.mark.parametrize("limit", [-1, 1.5, True, "1", 1 << 63])
def test_a_limit_that_is_none(limit):
    with pytest.raises(ValueError, match="limit must be a number of bytes"):
        limit_kept_memory(limit)


@pytest.mark.parametrize(("value", "want"), [("0", 0), ("100", 100 * MIB), ("x", None)])
def test_the_limit_from_the_environment(value, want):
    script = "from dpad_fast.ops import kept_memory; print(kept_memory().limit)"
    environment = {**os.environ, "DPAD_FAST_KEEP_MB": value}
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    default = min(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE") // 8, 4 << 30)
    assert int(run.stdout) == (default if want is None else want)


def test_live_outputs_share_no_memory_whatever_died_before():
    rng = np.random.default_rng(0)
    live = []
    for i in range(100):
        if live and rng.random() < 0.5:
            live.pop(int(rng.integers(len(live))))
        size = int(rng.integers(LARGE, 3 * LARGE))
        live.append((bytes_of(size, i % 251), i % 251))
        for (a, _), (b, _) in itertools.pairwise(live):
            assert a.data_ptr() + a.numel() <= b.data_ptr() or b.data_ptr() + b.numel() <= a.data_ptr()
    for out, value in live:
        assert bool((out == value).all())


def test_from_many_threads_at_once():
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for i in range(40):
            out = bytes_of(int(rng.integers(LARGE, 2 * LARGE)), seed)
            if i % 3 == 0:
                limit_kept_memory(int(rng.integers(32, 64)) * MIB)
            if not bool((out == seed).all()):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert kept_memory().kept <= kept_memory().limit


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore")
def test_forks_while_other_threads_take_and_give():
    held = bytes_of(8 * MIB, 9)
    bytes_of(12 * MIB, 1)
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            bytes_of(LARGE)

    threads = [threading.Thread(target=churn) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                # NumPy, as torch's own threads do not outlive a fork.
                array = held.numpy()
                good = kept_memory().kept == 0 and bool((array == 9).all())
                array[:] = 5
                del held, array
                good = good and kept_memory().kept == 0  # the parent's page, not to be written again
                mine = bytes_of(8 * MIB)
                mine.numpy()[:] = 3
                good = good and bool((mine.numpy() == 3).all())
                del mine
                os._exit(0 if good and kept_memory().kept == 8 * MIB else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert bool((held == 9).all())


def test_outputs_travel_as_any_tensor():
    out = bytes_of(LARGE, 6)
    file = io.BytesIO()
    torch.save(out, file)
    file.seek(0)
    assert torch.equal(torch.load(file), out)
    shared = out.clone()
    address = out.data_ptr()
    out.share_memory_()  # moves it into memory that processes share, and lets go of ours
    assert out.data_ptr() != address
    assert torch.equal(out, shared)
    assert kept_memory().kept == LARGE


class Batches(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return rasterize_polygons([[(i, 0), (600, 3), (300, 400)]] * 20, 480, 640, out="dense")


def test_in_data_loader_workers():
    loader = torch.utils.data.DataLoader(Batches(), num_workers=2, batch_size=None, multiprocessing_context="fork")
    for i, got in enumerate(loader):
        assert torch.equal(got, Batches()[i])


def rings(count, seed):
    """Polygons of which one lies outside the image."""
    rng = np.random.default_rng(seed)
    return [rng.random((8, 2)) * (700, 500) - 30 for _ in range(count - 1)] + [np.array([(-9, -9), (-5, -9), (-7, -3)])]


@pytest.mark.parametrize("rule", ["coco", "opencv", "center"])
@pytest.mark.parametrize("count", [20, 260])  # of 480 x 640: within the caches, and cleared past them
def test_used_memory_is_cleared_where_nothing_is_drawn(rule, count):
    limit_kept_memory(0)
    want = rasterize_polygons(rings(count, 1), 480, 640, rule=rule, out="dense")  # on zeros from the system
    limit_kept_memory(256 * MIB)
    bytes_of(want.numel(), 255)
    kept = kept_memory().kept
    got = rasterize_polygons(rings(count, 1), 480, 640, rule=rule, out="dense")
    assert kept_memory().kept < kept  # so it did take what was full of ones
    assert torch.equal(got, want)


def test_used_memory_is_cleared_in_packed_masks_too():
    limit_kept_memory(256 * MIB)
    outlines = rings(1800, 2)  # 69 MB: cleared past the caches
    want = rasterize_polygons(outlines, 480, 640)
    bytes_of(want.words.numel() * 8, 255)
    kept = kept_memory().kept
    got = rasterize_polygons(outlines, 480, 640)
    assert kept_memory().kept < kept
    again = PackedMasks(got.words, 640)  # measured anew
    assert torch.equal(got.words, want.words)
    for masks in (got, again):
        assert torch.equal(masks.area, want.area)
        assert torch.equal(masks.box, want.box)


def test_crops_in_used_memory():
    picture = np.random.default_rng(3).integers(0, 256, (90, 120, 3), np.uint8)
    boxes = [(i, 0, i + 60, 90 - i) for i in range(12)]
    want = roi_clip_preprocess([picture], boxes, [0] * 12).clone()
    address = bytes_of(want.numel() * 4, 255).data_ptr()
    got = roi_clip_preprocess([picture], boxes, [0] * 12)
    assert got.data_ptr() == address
    assert torch.equal(got, want)
