"""For reward_fn="dpad_rewards.reward_fn"; the file that DPAD_FAST_SCORER names has the server's url."""

from dpad_fast.integrations.areal import reward_function

QWEN_2_5_VL = {"patch_size": 14, "merge_size": 2, "min_pixels": 3136, "max_pixels": 1003520}

reward_fn = reward_function(processor=QWEN_2_5_VL, columns={"solution": "answer"}, image="images")
