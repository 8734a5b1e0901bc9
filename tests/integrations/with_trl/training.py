"""Three steps of TRL on data with every fault, by plain, async and remote scoring; each process writes a file.

python training.py FOLDER [URL]            # or with accelerate launch, in several processes
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import set_seed
from trl import GRPOConfig, GRPOTrainer

import dpad_fast as df
from dpad_fast.data import shapes
from dpad_fast.data.shapes_text import MIXTURES, completion_of
from dpad_fast.integrations.trl import GroupAdvantageMixin, TrlRewards
from dpad_fast.train.policy import load_policy

STEPS, QUERIES, GENERATIONS = 3, 4, 2
OPTIONS = ("--set", "shape=sigmoid", "--threads", "1")  # of the server; the configuration below
SPEC = df.ScorerSpec(config=df.RewardConfig.preset("dpad", shape="sigmoid"), encoder="shapes", threads=1)
MISSING, BROKEN, WRONG_SIZE, OFF = 8, 9, 10, 11  # rows with a fault in their data


def png(picture: Any) -> bytes:
    """A picture's file."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def rows() -> list[dict[str, Any]]:
    """A scene per row. The policy is shown `image`; `picture` is what the ground truth is about."""
    made = []
    for i in range(STEPS * QUERIES):
        scene = shapes.sample(5, i)
        picture: dict[str, Any] | None = {"bytes": png(scene.image), "path": None}
        solution = scene.target.text
        if i == MISSING:
            picture = None
        elif i == BROKEN:
            picture = {"bytes": png(scene.image)[:60], "path": None}
        elif i == WRONG_SIZE:
            picture = {"bytes": png(scene.image.resize((112, 56))), "path": None}
        elif i == OFF:
            solution = "<box>(0,0),(900,900)</box><points>(1,1),(2,2)</points>"
        prompt = [{"role": "user", "content": scene.query}]
        made.append({"prompt": prompt, "image": scene.image, "picture": picture, "solution": solution, "id": i})
    return made


def target_of(row: dict[str, Any]) -> df.Target:
    """A scene's ground truth is in pixels of 112 x 112, whatever the picture has."""
    return df.Target.parse(row["solution"], image_size=(112, 112))


def said(row: int, generation: int, text: str) -> str | None:
    """What the policy is taken to have said: some answers are right, some are faulty, the others its own."""
    right = completion_of(shapes.sample(5, row), MIXTURES["e"], np.random.default_rng(row))
    faulty = {0: "no idea", 1: right.replace("<caption>", "").replace("</caption>", ""), 2: None, 3: right + "\ud800"}
    if generation == 0:
        return right
    return faulty.get(row, text)


class Scripted(GRPOTrainer):
    """A trainer of a user's own: some completions are replaced, and all that rewards were given for is written down."""

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        self.rows = [int(row["id"]) for row in inputs]
        return super()._generate_and_score_completions(inputs)

    def _generate(self, prompts: Any) -> Any:
        output = super()._generate(prompts)
        seen: dict[int, int] = {}
        for row, [message] in zip(self.rows, output[3], strict=True):
            seen[row] = seen.get(row, -1) + 1
            message["content"] = said(row, seen[row], message["content"])
        return output

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, ids: Any) -> torch.Tensor:
        rewards = super()._calculate_rewards(inputs, prompts, completions, ids)
        start = self.accelerator.process_index * len(inputs)
        values = rewards[start : start + len(inputs)].tolist()
        texts = [completion[0]["content"] for completion in completions]
        for row, text, value in zip(self.rows, texts, values, strict=True):
            self.written.append({"row": row, "text": text, "rewards": [None if v != v else v for v in value]})
        return rewards


class Own(GroupAdvantageMixin, Scripted):
    """The same with dpad-fast's advantage."""


def train(kind: str, scorer: Any, folder: Path, advantage: str | None = None, others: Any = (), base: Any = Own) -> Any:
    """Trains for three steps; what happened in this process.

    Args:
        kind: a name; the reward functions are `async def` where it ends in "async".
        scorer: any.
        folder: for TRL's own files.
        advantage: of the mixin; None: TRL's trainer without it.
        others: further reward functions, before the scorer's, with weight 0.
        base: the class of the trainer, with the mixin.
    """
    torch.set_num_threads(1)
    set_seed(0)
    model, processor = load_policy("policy-e")
    processor.tokenizer.padding_side = "left"
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    rewards = TrlRewards(scorer, target_of, processor=processor, image_column="picture")
    queries = QUERIES * GENERATIONS // processes()
    arguments = GRPOConfig(
        str(folder / kind),
        use_cpu=True,
        bf16=False,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        max_steps=STEPS,
        per_device_train_batch_size=queries,
        num_generations=GENERATIONS,
        max_completion_length=24,
        learning_rate=1e-3,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        gradient_checkpointing=False,
        shuffle_dataset=False,
        reward_weights=[0.0] * len(others) + rewards.weights(),
    )
    kinds = {"advantage": advantage} if advantage else {}
    trainer = (base if advantage else Scripted)(
        model,
        [*others, *rewards.functions(async_=kind.endswith("async"))],
        arguments,
        train_dataset=Dataset.from_list(rows()),
        processing_class=processor,
        **kinds,
    )
    trainer.written = []
    trainer.train()
    after = dict(trainer.accelerator.unwrap_model(trainer.model).named_parameters())
    return {
        "kind": kind,
        "written": trainer.written,
        "steps": trainer.state.global_step,
        "log": [line for line in trainer.state.log_history if "reward" in line],
        "counts": dict(rewards.counts),
        "moved": sum(not torch.equal(before[name], after[name]) for name in before),
        "finite": all(bool(torch.isfinite(value).all()) for value in after.values()),
    }


def processes() -> int:
    """How many train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def main() -> None:
    """Every kind in turn, in this process or in several; a file per process."""
    logging.basicConfig()
    folder = Path(sys.argv[1])
    remote = df.RemoteScorer(sys.argv[2])
    found = [
        train("sync", SPEC.build(), folder),
        train("async", SPEC.build(), folder, "std"),
        train("remote", remote, folder),
        train("remote-async", remote, folder, "trl"),
    ]
    rank = os.environ.get("RANK", "0")
    (folder / f"process-{rank}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
