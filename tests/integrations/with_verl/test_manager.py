"""`DpadRewardManager` and `compute_score` in verl's real reward worker: bad samples, settings and tokens."""

import io
import json
import logging

import pytest
from PIL import Image

pytest.importorskip("verl")

import dpad_fast as df
from dpad_fast.integrations.verl import check_config
from dpad_fast.testing import rewards as shared
from dpad_fast.testing.verl import LOCAL, sample, scored

# Sizes of which qwen-vl-utils or the processor changes one, both or none.
SIZES = [(96, 72), (150, 130), (28, 28), (840, 840), (1500, 1000), (31, 400), (640, 480), (5000, 3000), (10, 20)]


def content(picture=None, **keys):
    text = {"type": "text", "text": "find it"}
    blocks = [text] if picture is None else [{"type": "image", "image": picture, **keys}, text]
    return [{"role": "system", "content": "you find"}, {"role": "user", "content": blocks}]


def columns(picture=None, truth=shared.SOLUTION, **keys):
    """What a sample of verl's own form of data carries."""
    return {
        "raw_prompt": content(picture, **keys),
        "reward_model": {"ground_truth": truth, "style": "rule"},
        "data_source": "mine",
        "extra_info": {"index": 3},
        "index": 3,
        "tools_kwargs": {},
        "uid": "a-b-c",
    }


def scorer():
    return df.ScorerSpec(df.RewardConfig.preset("dpad"), encoder="shapes", threads=1).build()


def test_pictures_in_every_form_of_raw_prompt(configured, tokenizer, tmp_path):
    image = shared.picture(4, (150, 130))
    image.save(tmp_path / "a.png")
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    both = {"bytes": encoded.getvalue(), "path": None}
    forms = [
        columns(image),
        columns(str(tmp_path / "a.png")),
        columns(Image.open(io.BytesIO(encoded.getvalue())), **both),
    ]
    texts = [shared.completion(caption=f"a {word} cat") for word in ("red", "green", "large")]
    samples = [sample(tokenizer, text, **form) for text, form in zip(texts, forms, strict=True)]
    found = scored(configured(kwargs=LOCAL), samples)
    batch = scorer().score(texts, [shared.SOLUTION] * 3, [image] * 3, model_sizes=[(140, 140)] * 3)
    assert [one["reward_score"] for one in found] == batch.total.tolist()
    assert [one["reward_extra_info"]["s1"] for one in found] == batch.similarity["roi"].tolist()


def test_a_ground_truth_may_be_an_object_or_its_json_text(configured, tokenizer):
    """As for the reward function and every other trainer: its `image_size` counts."""
    image = shared.picture(1, (168, 126))
    truth = {"solution": shared.SOLUTION, "image_size": [96, 72]}
    text = shared.completion([side * 1.75 for side in (20, 12, 64, 52)])
    cases = [columns(image, truth=given) for given in (truth, json.dumps(truth), "{no JSON", shared.SOLUTION)]
    found = scored(configured(kwargs=LOCAL), [sample(tokenizer, text, **row) for row in cases])
    target = df.Target.parse(shared.SOLUTION, (96, 72))
    wanted = scorer().score([text], [target], [image], model_sizes=[(168, 126)]).total.item()
    rewards = [one["reward_score"] for one in found]
    assert rewards[:3] == [wanted, wanted, 0.0]
    assert rewards[3] < wanted
    assert found[2]["reward_extra_info"]["error"].startswith("targets[0]: the label looks like a JSON object but is no")


def test_bad_samples_get_the_lowest_reward_and_a_reason_and_harm_no_other(configured, tokenizer, tmp_path, caplog):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    good = shared.picture(1)
    cases = {
        "good": (shared.completion(), columns(good)),
        "malformed": ("no idea", columns(good)),
        "no caption": (shared.completion(caption=""), columns(good)),
        "missing picture": (shared.completion(), columns(None)),
        "a path that leads nowhere": (shared.completion(), columns(str(tmp_path / "nobody.png"))),
        "broken picture": (shared.completion(), columns(str(tmp_path / "broken.png"))),
        "two pictures": (shared.completion(), columns(good) | {"raw_prompt": content(good) + content(good)[1:]}),
        "too thin a picture": (shared.completion(), columns(Image.new("RGB", (900, 4)))),
        "truth off the picture": (
            shared.completion(),
            columns(good, truth="<box>(20,12),(640,520)</box><points>(30,24),(50,40)</points>"),
        ),
        "no truth": (shared.completion(), columns(good, truth=None)),
        "wrong size": (shared.completion(), columns(good) | {"img_width": 300, "img_height": 200}),
        "good again": (shared.completion(caption="a green dog"), columns(good)),
    }
    with caplog.at_level(logging.WARNING):
        found = scored(configured(kwargs=LOCAL), [sample(tokenizer, text, **row) for text, row in cases.values()])
    rewards = {name: one["reward_score"] for name, one in zip(cases, found, strict=True)}
    info = {name: one["reward_extra_info"] for name, one in zip(cases, found, strict=True)}
    rated = ("good", "malformed", "no caption", "wrong size", "good again")
    truths = [df.Target.parse(shared.SOLUTION, (300, 200) if name == "wrong size" else None) for name in rated]
    alone = scorer().score([cases[name][0] for name in rated], truths, [good] * 5, model_sizes=[(84, 84)] * 5)
    assert [rewards[name] for name in rated] == alone.total.tolist()
    unscored = {name: row["reason"] for name, row in info.items() if row["unscored"]}
    assert unscored == {
        "missing picture": "bad-image",
        "a path that leads nowhere": "bad-image",
        "broken picture": "bad-image",
        "two pictures": "bad-image",
        "too thin a picture": "bad-size",
        "truth off the picture": "bad-target",
        "no truth": "bad-target",
    }
    assert {rewards[name] for name in unscored} == {0.0}
    assert rewards["malformed"] == min(rewards.values())
    assert info["malformed"]["malformed"] == 1.0
    assert info["no caption"]["malformed"] == 1.0
    assert info["no caption"]["discriminative"] == 0.0
    assert info["wrong size"]["error"] == ""
    assert "which is meant is not known" in info["two pictures"]["error"]
    assert [list(row) for row in info.values()] == [list(info["good"])] * len(info)
    assert all(value == value for row in info.values() for value in row.values())  # no NaN, which means would keep
    assert "samples unscored" in caplog.text
    assert "bad-image 4" in caplog.text


def test_the_size_that_the_model_sees_is_what_verl_makes_of_the_picture(processor):
    from qwen_vl_utils import process_vision_info

    from dpad_fast.integrations._verl_rows import ModelSize

    with pytest.raises(ValueError, match="max_pixels alone, which the processor ignores in silence"):
        ModelSize(processor, {"max_pixels": 200_000})
    for limits in ({}, {"min_pixels": 3136, "max_pixels": 200_000}, {"min_pixels": 40_000, "max_pixels": 10**7}):
        rule = ModelSize(processor, limits)
        for size in SIZES:
            for keys in ({}, {"max_pixels": 100_000}, {"resized_height": 200, "resized_width": 300}):
                block = content(Image.new("RGB", size), **keys)
                (fetched,), _ = process_vision_info(block, image_patch_size=14)
                grid = processor.image_processor(images=[fetched], return_tensors="pt", **limits)["image_grid_thw"]
                _, rows, across = grid[0].tolist()
                assert rule(size, block[1]["content"][0]) == (14 * across, 14 * rows), (size, keys, limits)


@pytest.mark.parametrize(
    ("overrides", "kwargs", "message"),
    [
        (["reward.num_workers=8"], LOCAL, r"num_workers is 8 .*Set reward.num_workers=1, or start `dpad-fast serve`"),
        (["custom_reward_function.path=/a.py"], LOCAL, "custom_reward_function.path is '/a.py', which verl ignores"),
        (["reward_model.reward_manager=naive"], LOCAL, "reward_model.reward_manager is 'naive', which verl ignores"),
        (["reward_model.num_workers=1"], LOCAL, "reward_model.num_workers is 1, which .*set reward.num_workers"),
        (["reward.custom_reward_function.path=/a.py"], LOCAL, "which DpadRewardManager does not call"),
        (["reward.reward_model.enable=true"], LOCAL, "asks the reward model alone, and never DpadRewardManager"),
        ([f"algorithm.filter_groups.{x}" for x in ("enable=true", "metric=iou")], LOCAL, "metric is 'iou', of which"),
        ([], {**LOCAL, "encodr": "x"}, "unknown setting 'encodr'; known settings: columns"),
        ([], {**LOCAL, "model_sizes": "none"}, "model_sizes must be one of processor, picture"),
        ([], {**LOCAL, "columns": {"bx": "a"}}, "columns must map the fields of Columns to names"),
        ([], {**LOCAL, "max_failures": 0}, "max_failures must be a number of at least 1"),
        ([], {"encoder": "shapes", "device": "cuda:0"}, "this worker sees no GPU .*dpad-fast serve"),
        ([], {"encoder": "shapes"}, "threads is missing: Ray starts workers with OMP_NUM_THREADS=1"),
        ([], {}, "DPAD_FAST_SCORER is not set"),
    ],
)  # fmt: skip
def test_settings_that_would_be_ignored_or_lost_are_refused(
    configured, tokenizer, overrides, kwargs, message, monkeypatch
):
    from dpad_fast.integrations.verl import DpadRewardManager

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as Ray does
    monkeypatch.delenv("DPAD_FAST_SCORER", raising=False)
    with pytest.raises(ValueError, match=message):
        DpadRewardManager(configured(*overrides, kwargs=kwargs), tokenizer, None)
    check_config(configured(kwargs=LOCAL))


def test_tags_that_are_special_tokens_are_kept_and_told_by_name(configured, policy, tmp_path, caplog):
    import shutil

    from transformers import AutoTokenizer

    folder = tmp_path / "policy"
    shutil.copytree(policy, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<answer>", "</answer>"], special_tokens=True)
    tokenizer.save_pretrained(folder)
    text = shared.completion()
    one = sample(tokenizer, text, **columns(shared.picture(1)))
    ids = one.batch["responses"][0]
    assert "<answer>" not in tokenizer.decode(ids, skip_special_tokens=True)
    with caplog.at_level(logging.WARNING):
        (found,) = scored(configured(f"actor_rollout_ref.model.path={folder}", kwargs=LOCAL), [one])
    wanted = scorer().score([text], [shared.SOLUTION], [shared.picture(1)], model_sizes=[(84, 84)])
    assert found["reward_score"] == float(wanted.total[0])
    assert "<answer>, </answer> are special tokens" in caplog.text


def test_a_scorer_that_fails_for_all_ends_the_run(configured, tokenizer, monkeypatch):
    def broken(*arguments, **settings):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(df.RewardScorer, "score", broken)
    samples = [sample(tokenizer, shared.completion(), **columns(shared.picture(1))) for _ in range(4)]
    found = scored(configured(kwargs={**LOCAL, "max_failures": 5}), samples)
    assert {one["reward_extra_info"]["reason"] for one in found} == {"scorer-failed"}
    with pytest.raises(RuntimeError, match="failed for 4 samples in a row: out of memory"):
        scored(configured(kwargs={**LOCAL, "max_failures": 4}), samples)


def test_a_server_that_is_not_there_is_an_error_and_no_reward(configured, tokenizer):
    config = configured(kwargs={"url": "http://127.0.0.1:1", "retry_s": 0.0, "model_sizes": "picture"})
    with pytest.raises(ConnectionError):
        scored(config, [sample(tokenizer, shared.completion(), **columns(shared.picture(1)))])


NAIVE = (
    "reward.reward_manager.source=register",
    "reward.reward_manager.name=naive",
    "reward.custom_reward_function.path=pkg://dpad_fast.integrations.verl",
)


def test_the_reward_function_for_verl_s_own_managers(configured, tokenizer, policy, tmp_path):
    image = shared.picture(4, (150, 130))
    image.save(tmp_path / "a.png")
    settings = {**LOCAL, "processor": str(policy)}
    overrides = [f"+reward.custom_reward_function.reward_kwargs.{name}={value}" for name, value in settings.items()]
    texts = [shared.completion(), "no idea", shared.completion(caption="a green dog"), shared.completion()]
    paths = [tmp_path / "a.png"] * 3 + [tmp_path / "nobody.png"]
    samples = [
        sample(tokenizer, text, **(columns(image) | {"extra_info": {"image": str(path)}}))
        for text, path in zip(texts, paths, strict=True)
    ]
    found = scored(configured(*NAIVE, *overrides), samples)
    batch = scorer().score(texts[:3], [shared.SOLUTION] * 3, [image] * 3, model_sizes=[(140, 140)] * 3)
    assert [one["reward_score"] for one in found] == [*batch.total.tolist(), 0.0]
    info = [one["reward_extra_info"] for one in found]
    assert [row["score"] for row in info] == [*batch.total.tolist(), 0.0]
    assert [row["reason"] for row in info] == [*(reason or "" for reason in batch.reasons), "bad-image"]
    assert [list(row) for row in info] == [list(info[0])] * 4


def test_a_second_reward_worker_of_the_reward_function_says_what_to_set(monkeypatch):
    import asyncio
    import sys
    from types import SimpleNamespace

    from dpad_fast.integrations.verl import compute_score

    name = ["reward_loop_worker_5"]
    context = SimpleNamespace(get_actor_name=lambda: name[0])
    ray = SimpleNamespace(is_initialized=lambda: True, get_runtime_context=lambda: context)
    monkeypatch.setitem(sys.modules, "ray", ray)
    call = {"extra_info": {"image": shared.picture()}, "preset": "seg-zero", "model_sizes": "picture"}
    with pytest.raises(ValueError, match="or start `dpad-fast serve`"):
        asyncio.run(compute_score("x", "no idea", shared.SOLUTION, **call))
    name[0] = "reward_loop_worker_0"
    found = asyncio.run(compute_score("x", "no idea", shared.SOLUTION, **call))
    assert (found["score"], found["reason"]) == (0.0, "no-tags")
