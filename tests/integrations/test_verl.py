"""The adapter for verl where verl is not needed: settings that it ignores, the advantage, the reward function."""

import asyncio
import json
import sys
import warnings

import pytest
import torch

import dpad_fast as df
from dpad_fast.integrations._verl_rows import VerlRows
from dpad_fast.integrations.verl import check_config, compute_score, dpad_advantage
from dpad_fast.testing import rewards as shared

SETTINGS = {"preset": "dpad", "encoder": "shapes", "threads": 1, "model_sizes": "picture", "window_ms": 100}


def config(**changes):
    """The parts of verl's configuration that are looked at, all right, with changes by dotted name."""
    made = {
        "custom_reward_function": {"path": None, "name": None},
        "reward_model": {"reward_manager": None, "num_workers": None, "reward_loop_source": None},
        "reward": {
            "num_workers": 1,
            "custom_reward_function": {"path": None, "name": "compute_score"},
            "reward_kwargs": {"preset": "dpad"},
        },
    }
    for name, value in changes.items():
        inner = made
        *parts, last = name.split("__")
        for part in parts:
            inner = inner[part]
        inner[last] = value
    return made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"custom_reward_function__path": "/a.py"},
            "custom_reward_function.path is '/a.py', which verl ignores",
        ),
        ({"custom_reward_function__name": "f"}, "custom_reward_function.name is 'f', which verl ignores"),
        ({"reward_model__reward_manager": "batch"}, "reward_model.reward_manager is 'batch', which verl ignores"),
        ({"reward_model__num_workers": 1}, "reward_model.num_workers is 1, which verl ignores.*set reward.num_workers"),
        ({"reward_model__reward_loop_source": "importlib"}, "set reward.reward_manager.source instead"),
        ({"reward__custom_reward_function__path": "/a.py"}, "which DpadRewardManager does not call"),
        ({"reward__num_workers": 8}, "num_workers is 8 .*would load an encoder of its own"),
        ({"reward__reward_model": {"enable": True}}, "asks the reward model alone, and never DpadRewardManager"),
        (
            {"algorithm": {"filter_groups": {"enable": True, "metric": "total"}}},
            "metric is 'total', of which a sample that cannot be scored has none.*take one of reward, s1_over_s2",
        ),
    ],
)
def test_settings_that_verl_ignores_are_refused_by_name(change, message):
    check_config(config())
    with pytest.raises(ValueError, match=message):
        check_config(config(**change))


def test_several_workers_go_with_a_server():
    check_config(config(reward__num_workers=8, reward__reward_kwargs={"url": "http://127.0.0.1:1"}))


@pytest.mark.parametrize("groups", [{"enable": False, "metric": "total"}, {"enable": True, "metric": "reward"}])
def test_columns_without_gaps_may_filter_groups(groups):
    check_config(config(algorithm={"filter_groups": groups}, reward__reward_model={"enable": False}))


def test_the_file_of_settings_counts_as_settings(tmp_path, monkeypatch):
    """It says what `reward.reward_kwargs` would: a server for several workers, and what a worker of Ray's lacks."""
    file = tmp_path / "scorer.yaml"
    monkeypatch.setenv("DPAD_FAST_SCORER", str(file))
    several = config(reward__num_workers=8, reward__reward_kwargs={"window_ms": 5})
    file.write_text("url: http://127.0.0.1:1\n")
    check_config(several)
    file.write_text("encoder: shapes\n")
    with pytest.raises(ValueError, match="num_workers is 8"):
        check_config(several)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(ValueError, match="threads is missing: Ray starts workers with OMP_NUM_THREADS=1"):
        VerlRows({"model_sizes": "picture"})
    file.write_text("encoder: shapes\nthreads: 1\nmodel_sizes: picture\nunscored_reward: -1.0\nwindow_ms: 1\n")
    for settings, wanted in (({}, -1.0), ({"unscored_reward": -2.0}, -2.0)):
        reward, log = asyncio.run(VerlRows(settings).score(shared.completion(), {}, {"image": shared.picture()}))
        assert (reward, log["unscored"]) == (wanted, 1.0)
    file.write_text("encodr: shapes\n")
    with pytest.raises(ValueError, match=f"{file} .DPAD_FAST_SCORER.: unknown setting 'encodr'"):
        VerlRows({})


def test_what_fills_a_batch_of_verl_changes_no_advantage():
    """V1 appends groups of its own, without a token and with reward 0: a batch's spread is that of the others."""
    rewards = torch.tensor([[0.0, 3.0], [0.0, 1.0], [2.0, 0.0], [0.0, 7.0]])
    mask, uid = torch.tensor([[1, 1], [1, 1], [1, 0], [1, 1]]), ["a", "b", "a", "b"]
    filled = torch.cat([rewards, torch.zeros(4, 2)])
    filled_mask, filled_uid = torch.cat([mask, torch.zeros(4, 2, dtype=torch.int64)]), [*uid, *["pad1"] * 4]
    for scale in ("batch", "std", "none", "rloo"):
        settings = {"dpad": {"scale": scale}}
        wanted, _ = dpad_advantage(rewards, mask, settings, uid)
        found, _ = dpad_advantage(filled, filled_mask, settings, filled_uid)
        assert torch.equal(found[:4], wanted), scale
        assert not found[4:].any()
    # A row that was masked in a group that is there still counts in its group, as in verl's.
    one_masked = torch.tensor([[1, 1], [1, 1], [0, 0], [1, 1]])
    centred, _ = dpad_advantage(rewards, one_masked, {"dpad": {"scale": "none"}}, uid)
    by_batch, _ = dpad_advantage(rewards, one_masked, {"dpad": {"scale": "batch", "eps": 0.0}}, uid)
    torch.testing.assert_close(by_batch * torch.tensor([3.0, 1.0, 2.0, 7.0]).std(), centred)


def test_the_advantage_is_the_group_s_on_every_token():
    rewards = torch.tensor([[0.0, 3.0], [0.0, 1.0], [2.0, 0.0], [0.0, 7.0]])
    mask = torch.tensor([[1, 1], [1, 1], [1, 0], [1, 1]])
    uid = ["a", "b", "a", "b"]
    for normed, scale in ((True, "std"), (False, "none")):
        found, returns = dpad_advantage(rewards, mask, {"norm_adv_by_std_in_grpo": normed}, uid)
        wanted = df.ops.group_advantage(
            torch.tensor([3.0, 1.0, 2.0, 7.0]), uid, token_mask=mask, scale=scale, singleton="reward"
        )
        assert torch.equal(found, wanted)
        assert torch.equal(found, returns)
    found, _ = dpad_advantage(rewards, mask, {"dpad": {"scale": "rloo"}}, uid)
    assert found[:, 0].tolist() == [1.0, -6.0, -1.0, 6.0]
    for settings, message in (({"scle": "std"}, r"algorithm\.dpad\.scle"), ({"scale": "gdpo"}, "must be one of std")):
        with pytest.raises(ValueError, match=message):
            dpad_advantage(rewards, mask, {"dpad": settings}, uid)
    with pytest.raises(ValueError, match="index is missing"):
        dpad_advantage(rewards, mask)


def test_calls_of_the_reward_function_that_wait_together_get_the_scorer_s_values(tmp_path, monkeypatch):
    calls = []
    score = df.RewardScorer.score

    def counted(self, completions, *rest, **settings):
        calls.append(len(completions))
        return score(self, completions, *rest, **settings)

    monkeypatch.setattr(df.RewardScorer, "score", counted)
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for i, path in enumerate(paths):
        shared.picture(i).save(path)
    texts = [shared.completion(caption=f"a {word} cat") for word in shared.WORDS[:24]] + ["no idea"] * 24

    async def step():
        jobs = [
            compute_score(
                "x", text, shared.SOLUTION, {"image": str(paths[i % 4]), "model_size": shared.SIZE}, **SETTINGS
            )
            for i, text in enumerate(texts)
        ]
        return await asyncio.gather(*jobs)

    found = asyncio.run(step())
    assert sum(calls) == 48
    assert len(calls) <= 3
    scorer = df.ScorerSpec(df.RewardConfig.preset("dpad"), encoder="shapes", threads=1).build()
    wanted = scorer.score(
        texts, [shared.SOLUTION] * 48, [str(paths[i % 4]) for i in range(48)], None, [shared.SIZE] * 48
    )
    assert [one["score"] for one in found] == wanted.total.tolist()
    assert [one["s1"] for one in found[:24]] == wanted.similarity["roi"].tolist()[:24]
    assert {one["s1"] for one in found[24:]} == {None}
    assert {tuple(one) for one in found} == {tuple(found[0])}


def test_a_model_that_sees_pictures_as_they_are_is_no_warning_and_no_other_reward():
    """150 x 130 is no multiple of a patch: without the word, the scorer warns that a model may have seen another."""
    image = shared.picture(4, (150, 130))
    info = {"image": image}
    settings = {**SETTINGS, "window_ms": 1}  # of no other test: a scorer warns once
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = asyncio.run(compute_score("x", shared.completion(), shared.SOLUTION, info, **settings))
    assert [str(warning.message) for warning in caught] == []
    scorer = df.ScorerSpec(df.RewardConfig.preset("dpad"), encoder="shapes", threads=1).build()
    wanted = scorer.score([shared.completion()], [shared.SOLUTION], [image], model_sizes=[(150, 130)])
    assert (found["score"], found["reason"]) == (float(wanted.total[0]), "")


def test_a_bad_sample_of_the_reward_function_gets_the_lowest_reward_and_a_reason():
    async def step():
        return await asyncio.gather(
            compute_score("x", shared.completion(), shared.SOLUTION, {"image": "/nobody.png"}, **SETTINGS),
            compute_score("x", shared.completion(), shared.SOLUTION, {}, **SETTINGS),
            compute_score("x", shared.completion(), shared.SOLUTION, None, **SETTINGS),
            compute_score("x", shared.completion(), None, {"image": shared.picture()}, **SETTINGS),
            compute_score("x", shared.completion(), {"box": [20, 12, 64, 52]}, {"image": shared.picture()}, **SETTINGS),
        )

    found = asyncio.run(step())
    assert [one["reason"] for one in found[:3]] == ["bad-image"] * 3
    assert {one["reason"] for one in found[3:]} == {"bad-target"}  # the second has no points, which the reward needs
    assert {one["score"] for one in found} == {0.0}
    assert {one["unscored"] for one in found} == {1.0}
    with pytest.raises(ValueError, match="unknown setting 'encodr'"):
        asyncio.run(compute_score("x", "y", shared.SOLUTION, {}, encodr="shapes"))
    with pytest.raises(ValueError, match="size at which the policy sees pictures is not known"):
        asyncio.run(compute_score("x", "y", shared.SOLUTION, {}, encoder="shapes", threads=1))


def test_a_ground_truth_is_read_as_every_adapter_reads_a_label():
    """JSON text is the object; `image_size` is the size of the picture that the ground truth is about."""
    image, size = shared.picture(1, (192, 144)), (96, 72)
    truth = {"solution": shared.SOLUTION, "image_size": list(size)}
    text = shared.completion((40, 24, 128, 104))  # where the object is in the picture that is twice as large
    scorer = df.ScorerSpec(df.RewardConfig.preset("seg-zero")).build()
    settings = {"preset": "seg-zero", "model_sizes": "picture"}
    wanted = scorer.score([text], [df.Target.parse(shared.SOLUTION, size)], [image], None, [(192, 144)])

    async def step():
        info = {"image": image, "model_size": image.size}
        return [
            await compute_score("x", text, given, info, **settings)
            for given in (truth, json.dumps(truth), {**truth, "image_size": "96x72"}, "{no JSON")
        ]

    first, as_text, bad_size, bad_text = asyncio.run(step())
    assert (first["score"], first["reason"]) == (float(wanted.total[0]), wanted.reasons[0] or "")
    assert first["score"] > scorer.score([text], [shared.SOLUTION], [image], None, [(192, 144)]).total[0]
    assert as_text == first
    assert bad_size["reason"] == "bad-target"
    assert "image_size must be (width, height)" in bad_size["error"]
    assert bad_text["reason"] == "bad-target"


def test_a_solution_that_the_released_code_reads_is_scored_as_it_reads_it():
    config = df.RewardConfig.preset("dpad-released")
    scorer = df.ScorerSpec(config, encoder="shapes", threads=1).build()
    settings = {**SETTINGS, "preset": "dpad-released"}
    text, truth, image = shared.completion(), "<box>(1,2),(3,4)</box> and no points", shared.picture(1)
    wanted = scorer.score([text], [truth], [image], None, [shared.SIZE])
    found = asyncio.run(compute_score("x", text, truth, {"image": image, "model_size": shared.SIZE}, **settings))
    assert (found["score"], found["reason"]) == (float(wanted.total[0]), wanted.reasons[0] or "")


def test_verl_is_not_imported_before_its_classes_are_asked_for():
    assert "verl" not in sys.modules
    import dpad_fast.integrations.verl as adapter

    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = adapter.nothing
