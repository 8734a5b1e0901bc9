"""For --custom-rm-path dpad_rewards.custom_rm; the scorer's settings are in the file that DPAD_FAST_SCORER names."""

from dpad_fast.integrations.slime import reward_function

custom_rm = reward_function()
