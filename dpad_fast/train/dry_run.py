"""A run in small: the configuration, real rows and the policy's true rules, with a tiny random model, on this machine.

Each stage is timed and reports its facts: data, policy, prompt, picture, generation, reward, advantage, update.
`plan.py` computes the needs of a run at full size.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dpad_fast import hub
from dpad_fast.model_size import model_size_for
from dpad_fast.train.config import TrainConfig
from dpad_fast.train.known_policies import true_config
from dpad_fast.train.made_up import with_made_up_data
from dpad_fast.train.policy import quiet
from dpad_fast.train.prompt_sizes import prompt_size, render
from dpad_fast.train.prompts import make_dataset, with_steps
from dpad_fast.train.run import make_encoder, make_trainer
from dpad_fast.train.tiny_policy import write_tiny_policy
from dpad_fast.train.watched_step import GENERATIONS, WatchedScorer, WatchedStep, check_right_answers
from dpad_fast.types import Size

ROWS, QUERIES, TOKENS = 8, 2, 24
# Settings that a CPU cannot honour, or that only a run at full size needs; by the configuration's names.
_LEFT_OUT = ("dtype", "attention", "epochs", "vllm", "grpo.deepspeed", "grpo.fsdp", "grpo.warmup_steps")
# Fields of `grpo.trl` that say how the computation is spread or which hardware does it.
_HARDWARE = (
    "use_vllm", "vllm_", "deepspeed", "fsdp", "bf16", "fp16",
    "tf32", "optim", "torch_compile", "per_device_", "generation_batch_size", "steps_per_generation",
    "gradient_accumulation", "model_init_kwargs", "use_liger", "num_train_epochs", "max_steps", "dataloader_",
    "eval_", "warmup", "cast_lm_head",
)  # fmt: skip


@dataclass(frozen=True)
class StageReport:
    """One stage of a dry run.

    Attributes:
        name: of the stage.
        seconds: how long it took here.
        facts: its inputs and results, in plain data.
    """

    name: str
    seconds: float
    facts: Mapping[str, Any]

    def line(self) -> str:
        """As one line of text."""
        shown = ", ".join(f"{name} {_shown(value)}" for name, value in self.facts.items())
        return f"{self.name:<13}{self.seconds:6.2f} s  {shown}"


TellStage = Callable[[StageReport], None]


def dry_run(config: TrainConfig, tell: TellStage | None = None, made_up: Size | None = None) -> dict[str, Any]:
    """Go through one step of a run with a tiny random policy of the same class.

    Args:
        config: the run.
        tell: told about every stage as it is done.
        made_up: (width, height): take made-up pictures of that size in place of the configured data.

    Returns:
        `{"stages", "prompts", "made_up"}`: each stage with its seconds and facts, the `PromptSize` of every row read,
        and whether the rows were made up.

    Raises:
        ValueError: anything in the configuration or the data that would stop the run, or a right answer that does not
            get full marks; says what.
    """
    stages: list[StageReport] = []

    def done(name: str, started: float, **facts: Any) -> None:
        stages.append(StageReport(name, round(time.perf_counter() - started, 3), facts))
        if tell is not None:
            tell(stages[-1])

    with tempfile.TemporaryDirectory(prefix="dpad-fast-dry-") as place, quiet(), _no_bars():
        rows = _data(config, made_up, Path(place), done)
        small = _policy(config, rows.config, Path(place), done)
        scorer = _scorer(config, small, done)
        run = WatchedStep(make_trainer(small, scorer), scorer)
        _prompt(run.processor, rows.rows, done)
        run.step(done)
        check_right_answers(scorer, done)
        kind = true_config(config.policy)
        sizes = [prompt_size(config.policy, kind, run.processor, row["prompt"], row["image"]) for row in rows.rows]
    return {"stages": [asdict(stage) for stage in stages], "prompts": sizes, "made_up": made_up is not None}


@dataclass(frozen=True)
class _Rows:
    """The first rows of a run's data, and the run that reads just those."""

    config: TrainConfig
    rows: list[dict[str, Any]]


def _data(config: TrainConfig, made_up: Size | None, place: Path, done: Callable[..., None]) -> _Rows:
    started = time.perf_counter()
    first = config
    if made_up is not None:
        first = with_made_up_data(config, made_up, ROWS, place / "data")
    elif config.data.kind == "shapes":
        first = replace(config, steps=1, grpo=replace(config.grpo, queries=ROWS, accumulate=1))
    else:
        _check_reachable(config)
        few = min(ROWS, config.data.limit or ROWS)
        first = replace(config, data=replace(config.data, limit=few))
    rows = [dict(row) for row in make_dataset(first)]
    if len(rows) < QUERIES:
        raise ValueError(f"data.path {config.data.path}: {len(rows)} rows are not enough for a dry run of {QUERIES}")
    sizes = sorted({_size_text(row["image"].size) for row in rows})
    source = "made up" if made_up is not None else config.data.path or config.data.kind
    done("data", started, source=source, rows=len(rows), pictures=" ".join(sizes), first=_text_of(rows[0]["prompt"]))
    return _Rows(first, rows)


def _check_reachable(config: TrainConfig) -> None:
    """A name on the hub that cannot be reached is told in one line, within seconds."""
    path = config.data.path
    if Path(path).exists():
        return
    from datasets import config as settings

    if (Path(settings.HF_DATASETS_CACHE) / path.replace("/", "___")).is_dir():
        return
    try:
        hub.only_local(path, (), ())
    except ValueError as error:
        raise ValueError(
            f"data.path {path!r:.200}: {error}. Give a local folder (--set data.path=FOLDER), or go on without the "
            "data by --made-up-data WIDTHxHEIGHT"
        ) from None


def rows_of(config: TrainConfig, made_up: Size | None = None) -> int | None:
    """Rows of a run's data, counted only where the number of steps follows from it; else as many as one step needs.

    Args:
        config: the run.
        made_up: as in `dry_run`; made-up data has no number of its own.

    Returns:
        The number, or None where not all were counted.

    Raises:
        ValueError: the data does not fill one step, or a row that was counted cannot be read.
    """
    if made_up is not None or config.data.kind == "shapes":
        return None
    counted = config
    if not config.epochs:
        step = config.grpo.queries
        counted = replace(config, data=replace(config.data, limit=min(step, config.data.limit or step)))
    with _no_bars():
        rows = make_dataset(counted)
    with_steps(config, rows)
    return len(rows) if config.epochs else None


def _policy(config: TrainConfig, rows: TrainConfig, place: Path, done: Callable[..., None]) -> TrainConfig:
    started = time.perf_counter()
    folder = write_tiny_policy(place / "policy", config.policy, config.seed)
    small = shrink_run(replace(config, data=rows.data), folder, place / "run")
    left_out = [name for name in _LEFT_OUT if _setting(config, name) != _setting(small, name)]
    left_out += [f"grpo.trl.{name}" for name in config.grpo.trl if name not in small.grpo.trl]
    facts = {"in place of": config.policy, **({"left out here": " ".join(left_out)} if left_out else {})}
    done("policy", started, **facts)
    return small


def shrink_run(config: TrainConfig, policy: Path, out: Path) -> TrainConfig:
    """The run as one step on a CPU: few queries, short completions, no vLLM, no sharding; all else as it is.

    Args:
        config: the run.
        policy: folder of the tiny policy.
        out: the small run's folder.

    Returns:
        A new configuration.
    """
    trl = {name: value for name, value in config.grpo.trl.items() if not name.startswith(_HARDWARE)}
    usual = type(config.grpo)()
    tokens = min(TOKENS, config.grpo.completion_tokens)
    small: dict[str, Any] = {"queries": QUERIES, "generations": GENERATIONS, "completion_tokens": tokens}
    small |= {"accumulate": 1, "warmup_steps": 0, "schedule": "constant", "trl": trl}
    small |= {name: getattr(usual, name) for name in ("deepspeed", "fsdp") if hasattr(usual, name)}
    plain = type(config)()
    reset = {name: getattr(plain, name) for name in ("attention", "epochs", "vllm") if hasattr(plain, name)}
    if hasattr(plain, "dtype"):
        reset["dtype"] = "float32"
    evaluation = type(config.evaluation)(scenes=0)
    return replace(
        config,
        policy=str(policy),
        encoder="clip",
        encoder_backend="transformers",
        encoder_precision="float32",
        steps=1,
        save_every=1,
        tensorboard=False,
        device="cpu",
        out=str(out),
        grpo=replace(config.grpo, **small),
        evaluation=evaluation,
        **reset,
    )


def _scorer(config: TrainConfig, small: TrainConfig, done: Callable[..., None]) -> WatchedScorer:
    started = time.perf_counter()
    rewards = small.reward_config()
    encoder = make_encoder(small) if rewards.needs_encoder else None
    scorer = WatchedScorer(rewards, encoder)
    other = encoder is not None and config.encoder != small.encoder
    facts = {"in place of": config.encoder, "judges": "nothing on photographs"} if other else {}
    done("encoder", started, used="clip" if encoder is not None else "none", **facts)
    return scorer


def _prompt(processor: Any, rows: list[dict[str, Any]], done: Callable[..., None]) -> None:
    """The first row's prompt as the model gets it."""
    started = time.perf_counter()
    row = rows[0]
    text = render(processor, row["prompt"], row["image"])
    plain = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    done("prompt", started, text=text, tokens=len(plain))
    started = time.perf_counter()
    try:
        given = processor(text=[text], images=[row["image"]], return_tensors="pt", add_special_tokens=False)
    except ValueError as error:  # such as a picture that is too narrow for the family
        raise ValueError(f"data: the picture of {row['id']}, {_size_text(row['image'].size)}: {error}") from error
    tokens = int(given["input_ids"].shape[1])
    seen = model_size_for(row["image"].size, processor)
    facts = {"given": _size_text(row["image"].size), "seen": "tiles" if seen is None else _size_text(seen)}
    done("picture", started, **facts, pixel_values=list(given["pixel_values"].shape), tokens_with_picture=tokens)


def _setting(config: TrainConfig, name: str) -> Any:
    found: Any = config
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without the bars of `datasets` for a few rows."""
    from datasets import disable_progress_bars, enable_progress_bars
    from datasets.utils.tqdm import are_progress_bars_disabled

    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()


def _size_text(size: Any) -> str:
    return "{}x{}".format(*size)


def _text_of(prompt: Any) -> str:
    content = prompt[-1]["content"] if isinstance(prompt, list) else prompt
    if isinstance(content, list):
        content = " ".join(part.get("text") or "" for part in content).strip()
    return str(content)


def _shown(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= 120 else f"{text[:117]}..."
