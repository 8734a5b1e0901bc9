"""From answers to masks: by drawing what they say, by SAM with them as prompts, or by a function of the user's."""

from dpad_fast.segmenters.choose import SEGMENTERS, check_name, make_segmenter
from dpad_fast.segmenters.drawn import box_mask
from dpad_fast.segmenters.prompts import Prompt, Segmenter, prompts_of
from dpad_fast.segmenters.sam import SamSegmenter

__all__ = [
    "SEGMENTERS",
    "Prompt",
    "SamSegmenter",
    "Segmenter",
    "box_mask",
    "check_name",
    "make_segmenter",
    "prompts_of",
]
