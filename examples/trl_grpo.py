"""GRPO with TRL on pictures, two steps on a CPU. A real run changes MODEL, the data set, the encoder and the sizes."""

from transformers import AutoProcessor
from trl import GRPOConfig, GRPOTrainer

import dpad_fast as df
from dpad_fast.checkpoints import shipped
from dpad_fast.data import shapes
from dpad_fast.integrations.trl import TrlRewards

MODEL = str(shipped("policy-e"))


def main() -> None:
    """Trains, and prints what TRL logged."""
    dataset = shapes.dataset(seed=0, start=0, count=4)  # prompt, image, solution and id
    processor = AutoProcessor.from_pretrained(MODEL, padding_side="left")

    scorer = df.ScorerSpec(config=df.RewardConfig.preset("dpad"), encoder="shapes").build()
    rewards = TrlRewards(scorer, processor=processor)

    args = GRPOConfig(
        output_dir="runs/trl",
        max_steps=2,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=96,
        use_cpu=True,
        bf16=False,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        reward_weights=rewards.weights(),
    )
    trainer = GRPOTrainer(
        model=MODEL,
        reward_funcs=rewards.functions(),
        args=args,
        train_dataset=dataset,
        processing_class=processor,
    )
    trainer.train()

    for line in trainer.state.log_history:
        if "reward" in line:
            print(f"step {line['step']}: reward {line['reward']:.2f}, unscored {line['dpad/unscored']:.2f}")


if __name__ == "__main__":
    main()
