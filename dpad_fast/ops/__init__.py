"""The fast ops. Each is one public function that checks its input and picks the implementation by device.

The imports are eager on purpose: a module and its function share a name, and only a name bound here after the module
was loaded is sure to be the function. None of the modules imports triton; GPU code is loaded by the first CUDA tensor.
"""

from dpad_fast.ops.discriminative_reward import discriminative_reward
from dpad_fast.ops.group_advantage import group_advantage
from dpad_fast.ops.masks import mask_iou, mask_iou_matrix
from dpad_fast.ops.memory import kept_memory, limit_kept_memory
from dpad_fast.ops.packed_masks import PackedMasks
from dpad_fast.ops.polygons import polygon_iou, rasterize_polygons
from dpad_fast.ops.roi_clip_preprocess import roi_clip_preprocess

__all__ = [
    "PackedMasks",
    "discriminative_reward",
    "group_advantage",
    "kept_memory",
    "limit_kept_memory",
    "mask_iou",
    "mask_iou_matrix",
    "polygon_iou",
    "rasterize_polygons",
    "roi_clip_preprocess",
]
