"""Made-up pictures with one rectangle each, for a dry run where the real data cannot be reached."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw

from dpad_fast.train.config import DataConfig, TrainConfig
from dpad_fast.types import Size


def with_made_up_data(config: TrainConfig, size: Size, count: int, folder: Path) -> TrainConfig:
    """The run on made-up rows: a data set in the released form, whose every row asks for one rectangle.

    Args:
        config: the run; the prompt stays.
        size: (width, height) of the pictures.
        count: rows.
        folder: where the data set is written.

    Returns:
        The run with its `data` replaced.

    Raises:
        ValueError: a size of less than 16 pixels on a side.
    """
    from datasets import Dataset

    width, height = size
    if min(size) < 16:
        raise ValueError(f"made-up pictures need 16 pixels on a side, got {width}x{height}")
    x1, y1, x2, y2 = width // 4, height // 4, 3 * width // 4, 3 * height // 4
    middles = ((x1 + x2) // 2, (y1 + y2) // 2), ((x1 + 3 * x2) // 4, (y1 + y2) // 2)
    solution = "<box>({},{}),({},{})</box><points>({},{}),({},{})</points>".format(x1, y1, x2, y2, *sum(middles, ()))
    if config.reward_config().answer == "objects":
        solution = json.dumps([{"bbox_2d": [x1, y1, x2, y2], "point_2d": list(middles[0])}])
    rows = []
    for i in range(count):
        picture = Image.new("RGB", size, (90 + 10 * (i % 8), 120, 150))
        ImageDraw.Draw(picture).rectangle((x1, y1, x2, y2), fill=(200, 40, 40))
        rows.append({"id": f"made-up-{i}", "problem": "the red rectangle", "solution": solution, "image": picture})
        rows[-1] |= {"img_height": height, "img_width": width}
    Dataset.from_list(rows).save_to_disk(folder)
    data = DataConfig("dataset", path=str(folder), prompt=config.data.prompt, system_prompt=config.data.system_prompt)
    return replace(config, data=data)
