"""The largest inputs that are promised, together inside 2 GB: in a process of its own, whose address space is cut."""

import os
import subprocess
import sys

import pytest

GIBIBYTE = 1 << 30

SCRIPT = """
import resource
import numpy as np, torch
from PIL import Image
from dpad_fast import coco_mask
from dpad_fast.ops import PackedMasks, mask_iou_matrix, polygon_iou, rasterize_polygons, roi_clip_preprocess

def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(name))

torch.set_num_threads(2)
# What importing torch maps, most of it never touched, is not ours to answer for: 2 GiB from here.
limit = status("VmSize") + ROOM
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

picture = Image.new("RGB", (8000, 6000), (10, 200, 30))
pixels = roi_clip_preprocess([picture], [None, (-100, -100, 8100, 6100), (7999, 5999, 8000, 6000)], [0, 0, 0])
assert pixels.shape == (3, 3, 224, 224) and len(pixels[2, 0].unique()) == 1
del picture

turn = np.linspace(0, 2 * np.pi, 100_000, endpoint=False)
star = np.stack([np.cos(turn), np.sin(turn)], 1) * (1500 + 1400 * np.sin(999 * turn)[:, None]) + (4000, 3000)
for rule in ("coco", "opencv", "center"):
    packed = rasterize_polygons([star], 6000, 8000, rule=rule)
    dense = rasterize_polygons([star], 6000, 8000, rule=rule, out="dense")
    assert int(dense.sum()) == int(packed.area[0]) > 10**6
    assert polygon_iou([star], packed, rule=rule).tolist() == [1.0]
    rle = rasterize_polygons([star], 6000, 8000, rule=rule, out="rle")
    assert coco_mask.area(rle).tolist() == packed.area.tolist()
del packed, dense

one = np.zeros((480, 640), np.uint8)
one[100:300, 200:500] = 1
masks = PackedMasks.from_rle([coco_mask.encode(one)] * 10_000)
assert masks.area.unique().tolist() == [60_000]
assert mask_iou_matrix(masks, masks[:16]).unique().tolist() == [1.0]
rles = masks.to_rle()
assert coco_mask.iou(rles, rles[:8], [0] * 8).min() == 1
print(status("VmHWM"))
"""


@pytest.mark.skipif(not os.path.isfile("/proc/self/status"), reason="memory is measured through /proc")
@pytest.mark.skipif("DPAD_FAST_SANITIZED" in os.environ, reason="AddressSanitizer needs more address space than that")
def test_large_images_polygons_and_many_masks_inside_two_gigabytes():
    script = SCRIPT.replace("ROOM", str(2 * GIBIBYTE))
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 2 * GIBIBYTE  # all that was ever resident, Python and torch included
