"""For --external_plugins plugin_dpad.py; the scorer's settings are in the file that DPAD_FAST_SCORER names."""

from dpad_fast.integrations.swift import register

QWEN_2_5_VL = {"patch_size": 14, "merge_size": 2, "min_pixels": 3136, "max_pixels": 1003520}  # with MAX_PIXELS=1003520

register(terms=["iou", "discriminative"], processor=QWEN_2_5_VL)
