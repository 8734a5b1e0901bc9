"""Policies known by name: as many parameters as their repositories state, and pictures by their own rules."""

import pytest

from dpad_fast.train.known_policies import KNOWN, count_parameters, true_config
from dpad_fast.train.policy import quiet


@pytest.mark.parametrize("name", KNOWN)
def test_as_many_parameters_as_published(name):
    with quiet():
        assert count_parameters(true_config(name)) == KNOWN[name].parameters


@pytest.mark.parametrize("name", KNOWN)
def test_tokens_of_a_tile_follow_from_the_tower(name):
    """Tiles are square; patches are merged by pixel shuffle."""
    known = KNOWN[name]
    vision = known.config["vision_config"]
    if not known.tokens:
        assert known.images["patch_size"] == vision["patch_size"]
        assert known.images["merge_size"] == vision["spatial_merge_size"]
        return
    side, patch = vision["image_size"], vision["patch_size"]
    side, patch = (side[0], patch[0]) if isinstance(side, list) else (side, patch)
    assert known.images.get("max_image_size", {"longest_edge": side}) == {"longest_edge": side}
    factor = known.config.get("scale_factor", 2)
    assert (side // patch) ** 2 // factor**2 == known.tokens
