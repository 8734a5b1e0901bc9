"""TRL's real trainer, three steps, on data with every fault: plain, async, by a server; in one process and in two."""

import importlib.util
import json
import math
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("trl")

import dpad_fast as df
from dpad_fast.integrations.trl import completion_texts
from dpad_fast.testing.serving import Running
from dpad_fast.train.policy import load_policy

SCRIPT = Path(__file__).with_name("training.py")
KINDS = ["sync", "async", "remote", "remote-async"]


def script():
    spec = importlib.util.spec_from_file_location("training", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


training = script()
ROWS = training.rows()


@pytest.fixture(scope="module")
def server():
    running = Running(*training.OPTIONS)
    yield running
    assert running.stop() == 0


def trained(processes, server, folder):
    """What each process wrote."""
    command = [sys.executable, "-W", "ignore"]
    if processes > 1:  # "multi_gpu" is the launcher's word for several processes; they find no GPU and take the CPU
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command += ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
        command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        command += ["--main_process_port", str(port)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        env.pop(name, None)
    done = subprocess.run(
        [*command, str(SCRIPT), str(folder), server.url], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = [json.loads((folder / f"process-{rank}.json").read_text()) for rank in range(processes)]
    assert [[run["kind"] for run in runs] for runs in found] == [KINDS] * processes
    return found


@pytest.fixture(scope="module", params=[1, 2])
def runs(request, server, tmp_path_factory):
    return trained(request.param, server, tmp_path_factory.mktemp("trl"))


def test_training_went_on(runs):
    for run in (run for process in runs for run in process):
        assert run["steps"] == training.STEPS
        assert run["moved"] > 0
        assert run["finite"]
    for process in runs:
        assert len(process[0]["written"]) == 24 // len(runs)


def test_every_way_gives_the_same_rewards(runs):
    """The same completions, and floats equal to the bit; the advantage of the mixin's kinds is another."""
    for process in runs:
        sync = process[0]["written"]
        for run in process[1:]:
            assert run["written"] == sync
            assert run["counts"] == process[0]["counts"]
    everything = [value for process in runs for row in process[0]["written"] for value in row["rewards"]]
    assert len({value for value in everything if value is not None}) > 3


def test_rewards_are_those_of_the_scorer(runs):
    scorer, processor = training.SPEC.build(), load_policy("policy-e")[1]
    for process in runs:
        written = process[0]["written"]
        size = training.QUERIES * training.GENERATIONS // len(runs)
        for first in range(0, len(written), size):
            step = written[first : first + size]
            rows = [ROWS[row["row"]] for row in step]
            batch = scorer.score(
                completion_texts([[{"role": "assistant", "content": row["text"]}] for row in step]),
                [training.target_of(row) for row in rows],
                [row["picture"] if row["picture"] is not None else ValueError("none") for row in rows],
                model_sizes=lambda size: df.model_size_for(size, processor),
                on_error="row",
            )
            wanted = [[None if math.isnan(v) else v for v in values] for values in zip(*(c.tolist() for c in batch.terms.values()), strict=True)]  # fmt: skip # noqa: E501
            assert [row["rewards"] for row in step] == wanted


def test_a_faulty_row_is_unscored_or_lowest(runs):
    rows = [row for process in runs for row in process[0]["written"]]

    def rewards(row, generation):
        return [entry["rewards"] for entry in rows if entry["row"] == row][generation]

    right = [sum(rewards(row, 0)) for row in range(8)]
    assert min(right) > 4
    for row in (0, 2):  # no tags; no content at all
        assert rewards(row, 1) == [0.0] * 6
    assert rewards(1, 1)[-1] == 0.0  # no caption
    assert sum(rewards(3, 1)) < min(right)  # half a character
    assert rewards(training.MISSING, 0) == rewards(training.MISSING, 1) == [None] * 6
    assert rewards(training.BROKEN, 0) == [None] * 6
    assert rewards(training.OFF, 0) == rewards(training.OFF, 1) == [None] * 6
    assert sum(rewards(training.WRONG_SIZE, 0)) < min(right)


def test_the_log_says_how_many(runs):
    unscored = sum(row["rewards"][0] is None for process in runs for row in process[0]["written"])
    assert unscored >= 5
    for place, kind in enumerate(KINDS):
        lines = runs[0][place]["log"]
        assert len(lines) == training.STEPS, kind
        assert sum(line["dpad/unscored"] for line in lines) * 8 == pytest.approx(unscored)
        for name in ("dpad/malformed", "dpad/s1_over_s2", "dpad/seconds", "dpad/wait_seconds", "rewards/iou/mean"):
            assert all(math.isfinite(line[name]) for line in lines)
        counts = [process[place]["counts"] for process in runs]
        assert sum(count["rows"] for count in counts) == 24
        assert sum(count.get(c, 0) for count in counts for c in ("bad-image", "bad-target")) == unscored


class Watched:
    """A scorer that says when it begins and when it is done."""

    def __init__(self):
        self.scorer = training.SPEC.build()
        self.config = self.scorer.config
        self.began, self.ended = threading.Event(), threading.Event()

    def score(self, *columns, **settings):
        self.began.set()
        batch = self.scorer.score(*columns, **settings)
        self.ended.set()
        return batch


def test_scoring_goes_on_beside_trl(tmp_path):
    """It has begun when TRL asks for rewards, and ends while a plain reward function is busy."""
    watched = Watched()

    def busy(*, completions, **columns):
        assert watched.ended.wait(60), "the scoring waits for the plain functions"
        return [0.0] * len(completions)

    class Asking(training.Own):
        def _calculate_rewards(self, *arguments):
            assert watched.began.wait(60), "the scoring waits for TRL to ask"
            return super()._calculate_rewards(*arguments)

    run = training.train("overlap-async", watched, tmp_path, "rloo", others=[busy], base=Asking)
    assert run["steps"] == training.STEPS
    assert run["counts"]["rows"] == 24


def test_trls_asynchronous_worker_scores_groups():
    """Its own `_score_group`, in one event loop with generation: both kinds of functions, several groups at once."""
    import asyncio

    worker = pytest.importorskip("trl.experimental.async_grpo.async_rollout_worker")
    scorer = training.SPEC.build()
    rows = [{**row, "image": row["picture"]} for row in ROWS[:4]]

    def group(row):
        said = [training.said(row["id"], generation, "x") for generation in range(2)]
        return worker.RolloutGroup(
            prompts=[row["prompt"]] * 2,
            reward_kwargs={name: [row[name]] * 2 for name in ("image", "solution", "id")},
            completions=[[{"role": "assistant", "content": text}] for text in said],
            completions_ids=[[1], [2]],
            completions_sequences=[[worker.TrainingSequence([1, 2], [0, 1], [0.0, 0.0], None)] for _ in said],
            tool_call_counts=[0, 0],
            tool_failure_counts=[0, 0],
            model_version=0,
            group_id=row["id"],
            env_rewards=[None, None],
            rollout_rewards=[None, None],
        )

    def rewards_of(async_):
        from dpad_fast.integrations.trl import TrlRewards

        loop = object.__new__(worker._AsyncRolloutLoop)
        loop.reward_funcs = TrlRewards(scorer, training.target_of).functions(async_=async_)
        loop.reward_func_names = [function.__name__ for function in loop.reward_funcs]
        loop._env_reward_types, loop._provides_rollout_reward = [], False

        async def run():
            return await asyncio.gather(*(loop._score_group(group(row)) for row in rows))

        samples = [sample for group_ in asyncio.run(run()) for sample in group_]
        return [sample.metrics["reward"] for sample in samples]

    texts = [[training.said(row["id"], g, "x") for g in range(2)] for row in rows]
    expected = [
        sum(column[i].item() for column in scorer.score(
            completion_texts([[{"role": "assistant", "content": text}] for text in pair]),
            [training.target_of(row)] * 2, [row["image"]] * 2).terms.values())
        for row, pair in zip(rows, texts, strict=True) for i in range(2)
    ]  # fmt: skip
    assert rewards_of(True) == rewards_of(False) == pytest.approx(expected, abs=1e-6)
