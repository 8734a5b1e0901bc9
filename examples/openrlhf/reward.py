"""For --reward.remote_url reward.py; the scorer's settings are in the file that DPAD_FAST_SCORER names."""

from dpad_fast.integrations.openrlhf import reward_function

QWEN_2_5_VL = {"patch_size": 14, "merge_size": 2, "min_pixels": 3136, "max_pixels": 1003520}

reward_func = reward_function(processor=QWEN_2_5_VL)
