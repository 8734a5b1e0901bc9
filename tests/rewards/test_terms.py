"""Terms that need no encoder, column by column: what the rows of a group share is made once."""

import numpy as np

import dpad_fast as df
from dpad_fast.rewards import geometry
from dpad_fast.testing import rewards as shared


def test_masks_are_drawn_once_for_a_group_and_are_each_row_s_own(monkeypatch):
    drawn = []
    draw = geometry.target_mask
    monkeypatch.setattr(geometry, "target_mask", lambda *given: drawn.append(given[1]) or draw(*given))
    corners = [[20, 12], [64, 12], [64, 52], [20, 52]]
    fields = {"box": (20, 12, 64, 52), "image_size": shared.SIZE}
    same, other = (df.Target(polygons=(np.array(corners, float) / by,), **fields) for by in (1, 2))
    answer = f'<think></think><answer>{{"polygon": {corners}}}</answer>'
    config = df.RewardConfig.preset("seg-zero", geometry="mask", terms=("mask_iou",))
    targets = [same, same, df.Target(**fields), same, other, other, same]
    found = df.RewardScorer(config).score([answer] * 7, targets, on_error="row")
    assert found.errors[2].startswith("targets[2]")
    values = found.total.tolist()
    assert values[:2] + values[3:4] + values[6:] == [1.0] * 4
    assert values[4] == values[5] < 0.5
    assert drawn == [0, 2, 4, 6]
