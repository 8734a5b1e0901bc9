"""docs/verl.md names settings, keys and files that there are."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from dpad_fast.integrations import _verl_rows as rows
from dpad_fast.integrations._scorers import SETTINGS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "verl.md").read_text(encoding="utf-8")
EXAMPLE = yaml.safe_load((ROOT / "examples" / "verl" / "qwen2_5_vl_7b.yaml").read_text(encoding="utf-8"))


def test_the_table_has_every_setting() -> None:
    table = PAGE.split("| `reward.reward_kwargs` |")[1].split("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines()[2:] if "|" in line)))
    assert named == {*SETTINGS, *rows.OWN}


def test_the_example_and_the_page_set_the_same() -> None:
    blocks = re.findall(r"^```\n(algorithm.adv_estimator.*?)```", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1
    overrides = [word.strip('"').removeprefix("+").split("=", 1) for word in blocks[0].split()]
    assert len(overrides) > 9
    for name, value in overrides:
        found = EXAMPLE
        for part in name.split("."):
            found = found[part]
        assert str(found) == value, name


def test_the_module_and_the_plugin_that_are_named_are_there() -> None:
    import dpad_fast.integrations.verl as adapter

    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dpad_fast = "dpad_fast.integrations._verl_plugin"' in project
    assert (ROOT / "dpad_fast" / "integrations" / "_verl_plugin.py").is_file()
    assert {"DpadDataset", "DpadRewardManager", "compute_score"} <= set(adapter.__all__)
    names = re.findall(r"`(\w+)`", PAGE.split("has the same keys for every sample:")[1].split("(texts)")[0])
    from dpad_fast.integrations._scorers import LOG_KEYS

    assert names == list(LOG_KEYS)
