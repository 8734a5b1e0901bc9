"""The thread pool under all CPU ops: as many threads as torch uses, safe after a fork, from many threads at once."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from dpad_fast import coco_mask
from dpad_fast.ops import PackedMasks, mask_iou, mask_iou_matrix, polygon_iou, rasterize_polygons

COUNT = """
import os
import numpy as np, torch
from dpad_fast import coco_mask
from dpad_fast.ops import mask_iou, rasterize_polygons, roi_clip_preprocess

def threads():
    return len(os.listdir("/proc/self/task"))

masks = np.ones((64, 300, 300), bool)
pictures = [np.zeros((200, 200, 3), np.uint8)] * 8
rings = [[(1, 1), (290, 3), (150, 280)]] * 64

def work():
    mask_iou(masks, masks)
    rasterize_polygons(rings, 300, 300, out="dense")
    roi_clip_preprocess(pictures, None)
    coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0)))

before = threads()
torch.set_num_threads(1)
work()
alone = threads() - before
torch.set_num_threads(2)
work()
pair = threads() - before
torch.set_num_threads(1000)
work()
work()
many = threads() - before
print(alone, pair, many, len(os.sched_getaffinity(0)))
"""


def results():
    """What every op that uses threads gives for a fixed input, large enough to be split."""
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 24, 250, 300)) < 0.5
    rings = [rng.random((12, 2)) * (300, 250) for _ in range(24)]
    rles = PackedMasks.from_dense(a).to_rle()
    return [
        mask_iou(a, b).numpy(),
        mask_iou_matrix(a, b[:3]).numpy(),
        polygon_iou(rings, b).numpy(),
        rasterize_polygons(rings, 250, 300, out="dense").numpy(),
        rasterize_polygons(rings, 250, 300, rule="opencv").words.numpy(),
        coco_mask.decode(rles),
        coco_mask.iou(rles, rles[:2], [0, 1]),
    ]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def same(got, want):
    return all(np.array_equal(x, y) for x, y in zip(got, want, strict=True))


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted through /proc")
@pytest.mark.parametrize("allowed", [1, None])
def test_no_more_threads_than_torch_and_the_processors_allow(allowed):
    script = (
        COUNT if allowed is None else "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n" + COUNT
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    alone, pair, many, processors = map(int, run.stdout.split())
    assert alone == 0
    assert pair == min(2, processors) - 1
    assert many == processors - 1


def test_every_number_of_threads_gives_the_same():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        want = results()
        for count in (2, 3, 7):
            torch.set_num_threads(count)
            assert same(results(), want)
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_from_many_python_threads_at_once():
    want, good = results(), []
    callers = [threading.Thread(target=lambda: good.append(same(results(), want))) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert good == [True] * 6


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.usefixtures("two_threads")
def test_after_a_fork_and_again():
    want = results()
    child = os.fork()
    if child == 0:
        grandchild = os.fork() if same(results(), want) else -1
        if grandchild == 0:
            os._exit(0 if same(results(), want) else 1)
        os._exit(1 if grandchild < 0 or os.waitpid(grandchild, 0)[1] != 0 else 0)
    assert os.waitpid(child, 0)[1] == 0
    assert same(results(), want)


class Masks(torch.utils.data.Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        torch.set_num_threads(2)  # so that the worker uses a pool of its own
        return [torch.from_numpy(np.ascontiguousarray(result)) for result in results()]


@pytest.mark.usefixtures("two_threads")
def test_in_data_loader_workers():
    want = results()
    loader = torch.utils.data.DataLoader(Masks(), num_workers=2, batch_size=None, multiprocessing_context="fork")
    for got in loader:
        assert same([result.numpy() for result in got], want)
