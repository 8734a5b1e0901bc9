"""Ask a policy about pictures: the chain of thought, the location and the description, with a picture of each answer.

The last argument is the question, the ones before it are pictures. With --shapes the pictures and their questions are
scenes of the shapes world. Without --policy the small policy that comes with the package answers; it knows that world
only. Decoding is greedy unless --temperature is given.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpad_fast import files
from dpad_fast.commands import _output
from dpad_fast.terminal import printable, say

if TYPE_CHECKING:
    from dpad_fast.evaluate.infer import Inference

_IMAGE = re.compile(r"^images\[(\d+)\]")
DEFAULT_POLICY = "policy-e"
_NOTE = "note: the built-in policy knows pictures of the shapes world only (--shapes 3); --policy names another"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options.

    Args:
        parser: the parser of `dpad-fast infer`.
    """
    parser.add_argument("subjects", nargs="*", metavar="IMAGE... QUERY", help="pictures, and a question about each")
    parser.add_argument("--shapes", type=int, metavar="SCENES", help="ask about so many scenes of the shapes world")
    parser.add_argument("--policy", help=f"shipped name, folder, run folder or hub name (default: {DEFAULT_POLICY})")
    parser.add_argument(
        "--segmenter",
        help="box, polygon, background, sam2[:NAME_OR_FOLDER], sam3, or your own MODULE:FUNCTION (default: polygon, "
        "which is the box where there is none; with --shapes background)",
    )
    parser.add_argument("--encoder", help="CLIP for S1 and S2 (shipped name, folder or hub name; default: none)")
    parser.add_argument("--out", default="infer-out", help="folder for a PNG of each answer (default: infer-out)")
    parser.add_argument("--system", default="", help="the system's turn (default: its run's, or none)")
    parser.add_argument(
        "--prompt-template",
        default="",
        help="dpad, seg-zero, vision-reasoner, or a text with {question} (default: its run's, or dpad; the built-in "
        "policies take the question alone)",
    )
    parser.add_argument("--coordinates", help="pixel, norm1000 or norm1 (default: its run's, or its family's)")
    parser.add_argument("--batch", type=int, default=8, help="completions at a time (default: 8)")
    parser.add_argument("--temperature", type=float, default=0.0, help="of sampling; 0 is greedy (default: 0)")
    parser.add_argument("--samples", type=int, default=1, help="answers per picture (default: 1)")
    parser.add_argument("--seed", type=int, default=9000, help="of sampling, and of the scenes (default: 9000)")
    parser.add_argument("--tokens", type=int, help="longest answer (default: its run's, or 512)")
    parser.add_argument("--device", default="cpu", help="where the models run (default: cpu)")
    _output.add_json(parser, "the answers with their masks")
    _output.add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Ask and show.

    Args:
        args: the parsed arguments.

    Returns:
        The exit status.

    Raises:
        ValueError: a bad argument, picture or model; says which.
    """
    images, names, queries = _subjects(args)
    _output.spare({"--json": args.json}, [path for path in images if isinstance(path, str)])
    _output.prepare(args.json)
    for name in ("batch", "samples", "tokens"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(args, name)}")
    if not 0 <= args.seed < 1 << 63:
        raise ValueError(f"--seed must be at least 0 and below 2^63, got {args.seed}")
    if args.samples > 1 and args.temperature == 0:
        raise ValueError(f"--samples {args.samples} needs --temperature: greedy answers are all the same")
    out = Path(args.out)
    endings = [f"-{number}" for number in range(args.samples)] if args.samples > 1 else [""]
    places = [[out / f"{name}{ending}.png" for ending in endings] for name in names]
    for place in (place for several in places for place in several):
        _output.spare({"--out": place}, [path for path in images if isinstance(path, str)])
    files.make_folder(out)
    found = _ask(args, images, queries)
    rows = []
    for name, image, answers, several in zip(names, images, found, places, strict=True):
        for answer, place in zip(answers, several, strict=False):
            _draw(image, answer, place)
            say(_shown(name, answer, place), quiet=args.quiet or args.json == _output.STDOUT)
            source = image if isinstance(image, str) else name
            rows.append({"image": source, "overlay": str(place), **answer.to_dict()})
    _output.write_json(args.json, {"n": len(rows), "answers": rows}, args.quiet)
    return 0


def _subjects(args: argparse.Namespace) -> tuple[list[Any], list[str], list[str]]:
    """The pictures, a name for each, and the questions."""
    if args.shapes is not None:
        if args.subjects:
            raise ValueError("--shapes has pictures and questions of its own; leave out IMAGE and QUERY")
        if not 1 <= args.shapes <= 10_000:
            raise ValueError(f"--shapes must be from 1 to 10,000, got {args.shapes}")
        from dpad_fast.data import shapes

        scenes = [shapes.sample(args.seed, index) for index in range(args.shapes)]
        return [s.image for s in scenes], [f"scene-{i}" for i in range(len(scenes))], [s.query for s in scenes]
    if len(args.subjects) < 2:
        raise ValueError("give one or more pictures and then a question, or --shapes SCENES")
    *paths, query = args.subjects
    if os.path.exists(query):
        raise ValueError(f"the last argument is the question, but {query!r:.200} is a file")
    for path in paths:
        if not os.path.isfile(path):
            raise ValueError(f"no such picture: {path}")
    return paths, _names(paths), [query] * len(paths)


def _names(paths: Sequence[str]) -> list[str]:
    """Files' names without ending; equal ones are numbered."""
    names: list[str] = []
    for path in paths:
        stem, number = Path(path).stem, 0
        while (name := f"{stem}.{number}" if number else stem) in names:
            number += 1
        names.append(name)
    return names


def _ask(args: argparse.Namespace, images: Sequence[Any], queries: Sequence[str]) -> list[list[Inference]]:
    from dpad_fast.checkpoints import POLICIES
    from dpad_fast.clip import load_encoder
    from dpad_fast.clip.load import find_device
    from dpad_fast.evaluate.asking import asking_of
    from dpad_fast.evaluate.infer import ask_as, coordinates_of, infer
    from dpad_fast.segmenters import make_segmenter
    from dpad_fast.train.policy import quiet

    device = find_device(args.device)
    policy = args.policy or DEFAULT_POLICY
    asking = asking_of(
        policy,
        prompt=args.prompt_template or None,
        system=args.system or None,
        coordinates=args.coordinates,
        samples=args.samples,
        temperature=args.temperature,
        seed=args.seed,
        batch=args.batch,
        tokens=args.tokens,
    )
    if policy in POLICIES and args.shapes is None:
        say(_NOTE, quiet=args.quiet, file=sys.stderr)
    with quiet():
        # First: a name that leads nowhere is told before anything large is loaded.
        segmenter = make_segmenter(
            args.segmenter or ("polygon" if args.shapes is None else "background"),
            **({"device": device} if (args.segmenter or "").startswith("sam") else {}),
        )
        encoder = None if args.encoder is None else load_encoder(args.encoder, device=device)
    model, processor = asking.load(device)
    space = asking.coordinates or coordinates_of(model)
    settings: dict[str, Any] = {
        "per_image": asking.samples,
        "batch": asking.batch,
        "temperature": asking.temperature,
        "seed": asking.seed,
        "max_new_tokens": asking.tokens,
        "coordinates": space,
        "model_size": asking.model_size,
        "ask": ask_as(asking.prompt, asking.system, space),
    }
    try:
        return infer(model, processor, images, queries, segmenter=segmenter, encoder=encoder, **settings)
    except ValueError as error:
        raise ValueError(_IMAGE.sub(lambda place: str(images[int(place[1])]), str(error))) from error


def _draw(image: Any, answer: Inference, place: Path) -> None:
    from dpad_fast.evaluate.overlays import draw_overlay
    from dpad_fast.pictures import open_picture

    text = f"{answer.query}\n{answer.answer.caption or ''}"
    if not isinstance(image, str):
        draw_overlay(image, answer.mask, answer.prompts, text).save(place)
        return
    with open_picture(image, image) as opened:
        draw_overlay(opened, answer.mask, answer.prompts, text).save(place)


def _shown(name: str, answer: Inference, place: Path) -> str:
    """An answer in words."""
    lines = [f"{printable(name)}: {printable(answer.query)}", f"  chain        {printable(answer.chain)}"]
    for prompt in answer.prompts:
        box = "no box" if prompt.box is None else "box ({:g}, {:g}, {:g}, {:g})".format(*_rounded(prompt.box))
        points = "".join(", point ({:g}, {:g})".format(*_rounded(point)) for point in prompt.points)
        lines.append(f"  location     {box}{points}")
    if not answer.prompts:
        reason = answer.answer.reasons[0] if answer.answer.reasons else "no location"
        lines.append(f"  location     none ({reason})")
    if answer.answer.caption is not None:
        lines.append(f"  description  {printable(answer.answer.caption)}")
    if answer.s1 is not None and answer.s2 is not None:
        lines.append(f"  S1 {answer.s1:.4f}, S2 {answer.s2:.4f}")
    if answer.mask is not None:
        lines.append(f"  mask         {int(answer.mask.sum()):,} of {answer.mask.size:,} pixels")
    return "\n".join([*lines, f"  picture      {place}"])


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 1) for value in values]
