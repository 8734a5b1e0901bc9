"""Which completions "guarded" looks at again: those that are within its margin of the threshold."""

from types import SimpleNamespace

import pytest
import torch

from dpad_fast.rewards.config import RewardConfig
from dpad_fast.rewards.discriminative import Discriminator


@pytest.mark.parametrize("margin", [0.1, 0.3, 0.004, 0.7, 0.5, 0.0, 1e-45])
@pytest.mark.parametrize("shape", ["binary", "roi-threshold"])
def test_what_is_as_far_as_the_margin_is_near(shape: str, margin: float) -> None:
    """As torch compares float32 with a number; 0.1 itself is a little less than float32's 0.1."""
    config = RewardConfig.preset("dpad", shape=shape, tau=0.0)
    edge = torch.tensor(margin)
    beyond, within = torch.nextafter(edge, edge + 1), torch.nextafter(edge, edge - 1)
    s1 = torch.stack([edge, beyond, within, -edge, -beyond, edge / 2, torch.tensor(float("nan")), torch.tensor(9.0)])
    found = Discriminator._near(SimpleNamespace(_config=config), s1, torch.zeros(8), range(8), margin)
    far = (s1.abs() > margin) & torch.isfinite(s1)
    assert found == torch.nonzero(~far).flatten().tolist()
    assert {0, 3, 5, 6} <= set(found)
    assert not {1, 4, 7} & set(found)
