"""The recipe of docs/scale.md for Ray Data ends, and its rewards are those of one process."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

import dpad_fast as df
from dpad_fast.data import rows

ray = pytest.importorskip("ray")
pa = pytest.importorskip("pyarrow")
PAGE = Path(__file__).parents[1] / "docs" / "scale.md"


def answer(box):
    x1, y1, x2, y2 = box
    points = {"points_1": [x1 + 1, y1 + 1], "points_2": [x2 - 1, y2 - 1]}
    return f"<think>t</think><answer>{json.dumps({'bbox': box, **points})}</answer>"


@pytest.mark.filterwarnings("default")  # Ray's own
def test_ray_data_gives_the_rewards_of_one_process(tmp_path):
    from pyarrow import parquet

    picture = tmp_path / "p.png"
    Image.new("RGB", (64, 48), (9, 80, 7)).save(picture)
    source = [
        {
            "id": f"row-{i}",
            "image": str(picture),
            "query": "q",
            "box": [4, 4, 20 + i, 30],
            "points": [[6, 6], [12, 20]],
            "width": 64,
            "height": 48,
            "completion": answer([4, 4, 20, 30]) if i % 3 else "no answer",
        }
        for i in range(40)
    ]
    parquet.write_table(pa.Table.from_pylist(source), tmp_path / "rows.parquet")
    spec = df.ScorerSpec(config=df.RewardConfig.preset("seg-zero"), threads=1)
    samples = list(rows.load(tmp_path / "rows.parquet"))
    expected = spec.build().score([row["completion"] for row in source], [s.target for s in samples])
    block = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8").split("## Ray Data")[1], re.DOTALL)
    assert block is not None
    names = {"__name__": "__main__"}  # what stands in a script travels to actors by value
    exec(compile(block[1], str(PAGE), "exec"), names)
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
    try:
        names["score"](str(tmp_path / "rows.parquet"), str(tmp_path / "out"), spec)
    finally:
        ray.shutdown()
    found = {row["id"]: row["reward"] for row in parquet.read_table(tmp_path / "out").to_pylist()}
    assert len(set(found.values())) > 2
    assert found == {row["id"]: one["total"] for row, one in zip(source, expected.rows(), strict=True)}
