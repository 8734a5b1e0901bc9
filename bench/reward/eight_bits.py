"""Would a first look in 8 bits pay under the guard? `python -m bench.reward --eight-bits`.

Captions only (images known). The linear layers of the text tower see rows and weights of 8 bits, each row and each
output channel with a scale of its own, and sums are exact: no 8-bit product of a CPU is more accurate. A caption whose
S1 - S2 is nearer to the threshold than twice the largest error has to be embedded again in 16 bits. At best an 8-bit
product costs half of a 16-bit one, so the text tower takes at least 0.5 + (the share that is embedded again) of what
it takes now.
"""

from __future__ import annotations

import argparse
import copy
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import dpad_fast as df
from bench.reward import work as ways
from dpad_fast import checkpoints
from dpad_fast.data import shapes

COMPLETIONS = 1024
"""The first half calibrates the margin, the second half is judged."""


class EightBits(nn.Module):
    """A linear layer whose rows and weights are whole numbers from -127 to 127 times a scale."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.bias = linear.bias
        self.weight = rounded(linear.weight.detach())

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """The product, exact up to float32's sums."""
        return nn.functional.linear(rounded(rows), self.weight, self.bias)


def rounded(rows: torch.Tensor) -> torch.Tensor:
    """Each row to 8 bits by its largest magnitude, and back."""
    scale = rows.abs().amax(dim=-1, keepdim=True).clamp(min=1e-30) / 127
    return (rows / scale).round() * scale


def in_eight_bits(model: nn.Module) -> nn.Module:
    """A copy whose linear layers are `EightBits`."""
    made = copy.deepcopy(model)
    for module in list(made.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, EightBits(child))
    return made


def study(args: argparse.Namespace, console: Console) -> int:
    """Prints, for a random ViT-B/32 and for the small trained CLIP, what a first look in 8 bits would cost."""
    torch.set_num_threads(args.threads)
    table = Table(title=f"first look in 8 bits, {COMPLETIONS // 2} captions after {COMPLETIONS // 2} for the margin")
    for name in (
        "model",
        "spread of S1 - S2",
        "largest error",
        "margin",
        "wrong without a guard",
        "embedded again",
        "text tower",
    ):
        table.add_column(name, justify="right" if table.columns else "left")
    for name, model, captions, regions, wholes in (_random_clip(), _small_clip()):
        exact = contrasts(model, captions, regions, wholes)
        rough = contrasts(in_eight_bits(model), captions, regions, wholes)
        half = COMPLETIONS // 2
        margin = 2 * float((rough - exact)[:half].abs().max())
        exact, rough = exact[half:], rough[half:]
        again = float((rough.abs() <= margin).float().mean())
        wrong = int(((rough > 0) != (exact > 0)).sum())
        error = float((rough - exact).abs().max())
        table.add_row(
            name, f"{float(exact.std()):.4f}", f"{error:.4f}", f"{margin:.4f}", f"{wrong} of {half}", f"{again:.1%}",
            f"at least {0.5 + again:.2f} of now",
        )  # fmt: skip
    console.print(table)
    return 0


def contrasts(
    model: Any, captions: list[dict[str, torch.Tensor]], regions: torch.Tensor, wholes: torch.Tensor
) -> torch.Tensor:
    """S1 - S2 [N]."""
    with torch.inference_mode():
        texts = torch.cat([ways.unit(model.get_text_features(**ids)) for ids in captions])
    return (texts * regions).sum(-1) - (texts * wholes).sum(-1)


def _tokens(tokenizer: Any, captions: list[str]) -> list[dict[str, torch.Tensor]]:
    return [dict(tokenizer([caption], return_tensors="pt")) for caption in captions]


def _random_clip() -> tuple[str, Any, list[dict[str, torch.Tensor]], torch.Tensor, torch.Tensor]:
    model, slow, _ = ways.make_clip()
    work = ways.make_work([ways.photograph(i) for i in range(ways.QUERIES)], COMPLETIONS, seed=0)
    encoder = df.ClipEncoder.from_transformers(model, slow)
    boxes = [ways.region(solution) for solution in work.solutions]
    regions = encoder.embed_images(work.pictures, boxes)
    wholes = encoder.embed_images(work.pictures, [None] * COMPLETIONS)
    ids = _tokens(slow.tokenizer, [ways.caption(text) for text in work.texts])
    return "ViT-B/32, random weights", model, ids, regions, wholes


def _small_clip() -> tuple[str, Any, list[dict[str, torch.Tensor]], torch.Tensor, torch.Tensor]:
    """Each caption describes a shape of the scene, every second one the target, as a policy in training would."""
    from transformers import CLIPModel, CLIPTokenizerFast

    folder = checkpoints.checkpoint(checkpoints.SMALL_CLIP)
    model = CLIPModel.from_pretrained(folder).eval()
    samples = [shapes.sample(0, i) for i in range(COMPLETIONS)]
    captions = [
        item.scene.objects[item.question.target if i % 2 else i % len(item.scene.objects)].name
        for i, item in enumerate(samples)
    ]
    encoder = df.load_encoder("shapes", precision="float32")
    pictures = [item.image for item in samples]
    regions = encoder.embed_images(pictures, [item.target.box for item in samples])
    wholes = encoder.embed_images(pictures, [None] * COMPLETIONS)
    return (
        "the small CLIP, trained",
        model,
        _tokens(CLIPTokenizerFast.from_pretrained(folder), captions),
        regions,
        wholes,
    )
