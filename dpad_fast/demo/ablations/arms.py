"""The arms of the ablations, what the paper claims of each, and their configurations in configs/ablations/."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dpad_fast
from dpad_fast.demo.settings import merged
from dpad_fast.train.config import TrainConfig, from_dict
from dpad_fast.train.reading import read_settings

BASE = "dpad"
SETTINGS = ("E", "F", "J")
MADE = "checkpoints/"
"""What a configuration names by this folder is made by `dpad-fast data shapes --rebuild`, and by the ablations."""
ABLATION, LIMIT, CONTROL = "ablation", "limit", "control"


@dataclass(frozen=True)
class Claim:
    """What the paper says of an arm, as a difference from R_dpad that a run can show.

    Attributes:
        metric: a key of `rule.MATTERS`.
        says: "higher", "lower" or "same": the arm's value against that of R_dpad.
        words: the claim.
        key: the paper rests on it.
    """

    metric: str
    says: str
    words: str
    key: bool = False


@dataclass(frozen=True)
class Arm:
    """One row of the table in each of its settings.

    Attributes:
        name: in `configs/ablations/SETTING-NAME.yaml`.
        title: for a reader.
        kind: "ablation", "limit" (the paper names it), or "control" (the paper has none).
        settings: where it is run.
        claims: judged in each of them.
    """

    name: str
    title: str
    kind: str
    settings: tuple[str, ...]
    claims: tuple[Claim, ...] = ()


_LENGTH = "with R_dpad chains are 42 % shorter than with geometry alone"
_CIOU = "with R_dpad cIoU is 3.09 points higher than with geometry alone"
_BARE = tuple(Claim("chain_tokens" if text is _LENGTH else "ciou", says, text, key=True)
              for text, says in ((_LENGTH, "higher"), (_CIOU, "lower")))  # fmt: skip
_ROI = (Claim("ciou", "lower", "a threshold on the region alone does worse than the contrast S1 - S2", key=True),)
_OTHER = tuple(Claim(metric, "same", "another vision-language model gives similar results") for metric in
               ("chain_tokens", "ciou"))  # fmt: skip
_STABLE = (
    Claim("format", "lower", "without R_format training is not stable: fewer answers are well formed"),
    Claim("spread", "higher", "without R_format training is not stable: the curves of seeds lie further apart"),
)


def _lifted(words: str) -> tuple[Claim, ...]:
    return (Claim("ciou", "higher", f"a limit, so without it cIoU should be higher: {words}"),)


def _felt(metric: str, words: str) -> tuple[Claim, ...]:
    return (Claim(metric, "lower", f"a limit, so it should cost: {words}"),)


ARMS: tuple[Arm, ...] = (
    Arm(BASE, "R_dpad", ABLATION, SETTINGS),
    Arm("geometry", "geometry only", ABLATION, SETTINGS, _BARE),
    Arm("any-object", "bonus for any object", CONTROL, ("J",)),
    Arm("no-caption", "no description", ABLATION, ("E", "J"), _BARE),
    Arm("roi-only", "region only, S1 > 0.25", ABLATION, ("E", "J"), _ROI),
    Arm("roi-only-best", "region only, best tau", ABLATION, ("E", "J"), _ROI),
    Arm("no-format", "no R_format, gate", ABLATION, ("J",), _STABLE),
    Arm("no-format-no-gate", "no R_format, no gate", ABLATION, ("J",), _STABLE),
    Arm("siglip", "encoder: SigLIP's way", ABLATION, ("E", "J"), _OTHER),
    Arm("clip-seed-1", "encoder: CLIP, other seed", ABLATION, ("E", "J"), _OTHER),
    Arm("sigmoid", "sigmoid of S1 - S2", LIMIT, ("J",), _lifted("a binary reward does not tell by how much")),
    Arm("margin", "margin S1 - S2", LIMIT, ("J",), _lifted("a binary reward does not tell by how much")),
    Arm("predicted-box", "region: predicted box", LIMIT, ("J",), _felt("ciou", "a true box is needed for the region")),
    Arm("hardest", "contrast: hardest object", LIMIT, ("J",), _lifted("the whole image is a weak contrast")),
    Arm("blanked", "contrast: target blanked", LIMIT, ("J",), _lifted("the whole image holds the target too")),
    Arm("two-attributes", "captions of two attributes", LIMIT, ("J",), _felt("s1_wins", "descriptions say too little")),
    Arm("no-textures", "encoder: blind to textures", LIMIT, ("J",), _felt("s1_wins", "CLIP misses fine differences")),
)


def chosen(names: str | None) -> list[Arm]:
    """The arms that `--arms` names, and R_dpad, with which all are compared.

    Args:
        names: separated by commas; None for all.

    Returns:
        The arms, in their own order.

    Raises:
        ValueError: for a name that is none.
    """
    if names is None:
        return list(ARMS)
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = [arm.name for arm in ARMS]
    for name in wanted:
        if name not in known:
            raise ValueError(f"--arms names {name!r:.80}; known: {', '.join(known)}")
    return [arm for arm in ARMS if arm.name in wanted or arm.name == BASE]


def folder() -> Path:
    """Where the arms' files are: in the current folder's clone, or the one that this package is installed from.

    Raises:
        ValueError: there is neither; the files are not part of the wheel.
    """
    for root in (Path.cwd(), Path(str(dpad_fast.__file__)).resolve().parents[1]):
        found = root / "configs" / "ablations"
        if (found / f"e-{BASE}.yaml").is_file():
            return found
    raise ValueError("configs/ablations was not found: run `dpad-fast demo --ablations` in a clone of the repository")


def config(setting: str, arm: Arm, seed: int, out: Path, changes: dict[str, Any] | None = None) -> TrainConfig:
    """The run of one arm, setting and seed.

    Args:
        setting: of `SETTINGS`.
        arm: has that setting.
        seed: of prompts and sampling; the same for every arm.
        out: folder of all ablations; what is made goes to its `checkpoints`.
        changes: of the command line.

    Returns:
        The configuration; its own folder is `out/SETTING/ARM/seed-N`.
    """
    values = merged(read_settings(folder() / f"{setting.lower()}-{arm.name}.yaml"), changes or {})
    for name in ("policy", "encoder"):
        if str(values.get(name, "")).startswith(MADE):
            values[name] = str(out / values[name])
    place = str(out / setting / arm.name / f"seed-{seed}")
    return from_dict({**values, "seed": seed, "out": place, "name": f"{setting} {arm.name}", "threads": 1})


def made_by_arms(configs: Sequence[TrainConfig], out: Path) -> list[str]:
    """Names of the checkpoints that some runs need and the package does not ship."""
    names = [name for config in configs for name in (config.policy, config.encoder)]
    made = out / MADE
    return sorted({Path(name).name for name in names if Path(name).parent == made})
