"""How a policy is asked: its run's own prompt, space, format and limits, and what options change."""

import json

import pytest

from dpad_fast.evaluate.asking import asking_of
from dpad_fast.train.config import from_dict


def run_folder(folder, **settings):
    config = from_dict({"policy": "policy-e", **settings})
    (folder / "policy").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"fingerprint": config.fingerprint(), "config": config.as_dict()}))
    return folder


def test_a_run_says_how_its_policy_is_asked(tmp_path):
    folder = run_folder(
        tmp_path / "run",
        data={"kind": "rows", "path": "x.jsonl", "prompt": "vision-reasoner", "system_prompt": "Be brief."},
        rewards={"preset": "vision-reasoner", "coordinates": "norm1000"},
        grpo={"completion_tokens": 77},
        max_pixels=50_176,
    )
    for place in (folder, folder / "policy"):
        found = asking_of(str(place))
        assert found.policy == str(folder / "policy")
        assert (found.prompt, found.system, found.coordinates) == ("vision-reasoner", "Be brief.", "norm1000")
        assert (found.format, found.tokens, found.loading) == ("vision-reasoner", 77, {"max_pixels": 50_176})
    changed = asking_of(str(folder), prompt="{question}?", system="", tokens=5, coordinates="pixel", format="dpad")
    assert (changed.prompt, changed.system, changed.tokens) == ("{question}?", "", 5)
    assert (changed.coordinates, changed.format) == ("pixel", "dpad")


def test_other_policies_are_asked_by_the_options(tmp_path):
    assert asking_of("policy-e").prompt == "{question}"
    assert (asking_of("org/name").prompt, asking_of("org/name").format) == ("dpad", "picture")
    assert asking_of("org/name", prompt="seg-zero").format == "seg-zero"
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    assert asking_of(str(tmp_path)).policy == str(tmp_path)


def test_a_run_without_its_policy_is_refused(tmp_path):
    folder = run_folder(tmp_path / "run")
    (folder / "policy").rmdir()
    with pytest.raises(ValueError, match="no policy folder yet"):
        asking_of(str(folder))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch", 0), ("samples", 0), ("tokens", -1), ("temperature", -0.5), ("temperature", float("nan")),
        ("seed", -1), ("coordinates", "inches"), ("format", "nonsense"), ("prompt", "no place"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(field, value):
    with pytest.raises(ValueError, match=field):
        asking_of("policy-e", **{field: value})
    with pytest.raises(ValueError, match="samples is 2"):
        asking_of("policy-e", samples=2)
