"""The shapes world: small scenes with exact geometry and queries that need a step of reasoning.

A scene is 112 x 112 pixels and holds 3 to 5 shapes that do not overlap, each with a colour, a form and a texture, on a
background whose red rises with x and whose blue rises with y (the only cue for absolute position that a vision tower
with rotary positions has). All box coordinates are multiples of 7, so a policy can write each with one token. A scene
is a pure function of `(seed, index)`: nothing is stored, and two processes see the same world.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dpad_fast.types import Sample, Target

if TYPE_CHECKING:
    from datasets import Dataset

SIDE = 112  # pixels, width and height of a scene
GRID = 7  # every box coordinate is a multiple of it
SIZES = (28, 35, 42)  # sides of the shapes' boxes, pixels
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "green": (44, 160, 68),
    "blue": (48, 88, 224),
    "yellow": (240, 216, 48),
    "orange": (244, 136, 28),
    "purple": (146, 60, 176),
}
FORMS = ("circle", "square", "triangle", "star")
TEXTURES = ("plain", "striped")

ASSOCIATIONS = {  # the last word is the clue
    "a banana": "yellow",
    "a tomato": "red",
    "grass": "green",
    "the sea": "blue",
    "a pumpkin": "orange",
    "a plum": "purple",
}
FUNCTIONS = {"rolls": "circle", "stacks": "square", "tops a house": "triangle", "shines at night": "star"}
SIDES = {"left": (0, -1), "right": (0, 1), "top": (1, -1), "bottom": (1, 1)}  # name -> (axis, sign)


@dataclass(frozen=True)
class Shape:
    """One shape of a scene.

    Attributes:
        colour: a key of `COLOURS`.
        form: one of `FORMS`.
        texture: one of `TEXTURES`.
        box: (x1, y1, x2, y2) in pixels of the scene, x2 and y2 exclusive, multiples of 7.
    """

    colour: str
    form: str
    texture: str
    box: tuple[int, int, int, int]

    @property
    def name(self) -> str:
        """The full description, unique within a scene: "red striped circle"."""
        return f"{self.colour} {self.texture} {self.form}"

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the box, pixels."""
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2

    @property
    def points(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Two points on the shape, multiples of 7: near its middle, and one step below."""
        x1, y1, x2, _ = self.box
        half = (x2 - x1) // (2 * GRID) * GRID
        return (x1 + half, y1 + half), (x1 + half, y1 + half + GRID)

    @property
    def polygon(self) -> NDArray[np.float64]:
        """Outline as [n, 2] vertices (x, y), pixels of the scene."""
        x1, y1, x2, _ = self.box
        return _outline(self.form) * (x2 - x1) + np.array([x1, y1], dtype=np.float64)


@dataclass(frozen=True)
class Query:
    """A question that fits exactly one shape.

    Attributes:
        kind: function, association, negation, position, or a texture with one of the first two.
        text: the question.
        clue: the words of the question that decide it.
        meaning: what they amount to, the step of reasoning.
        target: index of the shape in the scene.
    """

    kind: str
    text: str
    clue: str
    meaning: str
    target: int


@dataclass(frozen=True)
class Scene:
    """The shapes of a picture, in reading order (top to bottom, then left to right), and the seed that made it."""

    objects: tuple[Shape, ...]
    seed: int
    index: int


@dataclass(frozen=True, eq=False)
class ShapesSample(Sample):
    """A `Sample` that also knows the scene behind its picture and the query's reasoning."""

    image: Image.Image
    scene: Scene
    question: Query


@cache
def _outline(form: str) -> NDArray[np.float64]:
    """Vertices [n, 2] of a form in the unit square."""
    if form == "square":
        return np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    if form == "triangle":
        return np.array([[0.5, 0.0], [1.0, 1.0], [0.0, 1.0]])
    if form == "circle":
        turn = np.arange(32) * (2 * np.pi / 32)
        return 0.5 + 0.5 * np.stack([np.sin(turn), -np.cos(turn)], axis=1)
    turn = np.arange(10) * (np.pi / 5)
    radius = np.where(np.arange(10) % 2 == 0, 0.5, 0.24)
    star = np.stack([np.sin(turn) * radius, -np.cos(turn) * radius], axis=1)
    low, high = star.min(axis=0), star.max(axis=0)
    return np.asarray((star - low) / (high - low), dtype=np.float64)  # stretched to fill its box


@cache
def _stamp(form: str, size: int) -> NDArray[np.bool_]:
    """Mask [size, size] of a form: a pixel belongs where its centre lies inside the outline (even-odd)."""
    vertices = _outline(form) * size
    centres = np.arange(size) + 0.5
    inside = np.zeros((size, size), dtype=bool)
    for (xa, ya), (xb, yb) in zip(vertices, np.roll(vertices, -1, axis=0), strict=True):
        crosses = (ya <= centres) != (yb <= centres)  # [size], per row
        with np.errstate(divide="ignore", invalid="ignore"):
            at = xa + (centres - ya) * (xb - xa) / (yb - ya)
        inside ^= crosses[:, None] & (centres[None, :] > at[:, None])
    return inside


def _place(rng: np.random.Generator) -> tuple[Shape, ...]:
    """Draw 3 to 5 shapes with distinct names whose boxes do not overlap."""
    count = int(rng.integers(3, 6))
    shapes: list[Shape] = []
    names: set[str] = set()
    for _ in range(400):
        if len(shapes) == count:
            break
        # One draw of six numbers: rng.choice costs ten times as much, and a scene is made for every training step.
        pick = rng.integers(0, [len(SIZES), 1 << 20, 1 << 20, len(COLOURS), len(FORMS), len(TEXTURES)])
        size = SIZES[pick[0]]
        x, y = (int(v) % ((SIDE - size) // GRID + 1) * GRID for v in pick[1:3])
        box = (x, y, x + size, y + size)
        shape = Shape(list(COLOURS)[pick[3]], FORMS[pick[4]], TEXTURES[pick[5]], box)
        free = all(box[0] >= s.box[2] or s.box[0] >= box[2] or box[1] >= s.box[3] or s.box[1] >= box[3] for s in shapes)
        if free and shape.name not in names:
            shapes.append(shape)
            names.add(shape.name)
    if len(shapes) < 3:  # three large shapes in the corners leave no room: start over with the next draws
        return _place(rng)
    return tuple(sorted(shapes, key=lambda s: (s.box[1], s.box[0])))


def _candidates(shapes: tuple[Shape, ...]) -> dict[str, list[Query]]:
    """Every query of every kind that fits exactly one of the shapes."""
    found: dict[str, list[Query]] = {}

    def add(kind: str, text: str, clue: str, meaning: str, fits: list[int]) -> None:
        if len(fits) == 1:
            found.setdefault(kind, []).append(Query(kind, text, clue, meaning, fits[0]))

    def where(**wanted: str) -> list[int]:
        return [i for i, s in enumerate(shapes) if all(getattr(s, k) == v for k, v in wanted.items())]

    for verb, form in FUNCTIONS.items():
        clue = verb.split()[-1]
        add("function", f"find the one that {verb}", clue, form, where(form=form))
        for texture in TEXTURES:
            fits = where(form=form, texture=texture)
            add("function+", f"find the {texture} one that {verb}", f"{texture} {clue}", f"{texture} {form}", fits)
    for thing, colour in ASSOCIATIONS.items():
        clue = thing.split()[-1]
        add("association", f"find the one like {thing}", clue, colour, where(colour=colour))
        for texture in TEXTURES:
            fits = where(colour=colour, texture=texture)
            text, both = f"find the {texture} one like {thing}", f"{colour} {texture}"
            add("association+", text, f"{texture} {clue}", both, fits)
    for texture, other in (("striped", "plain"), ("plain", "striped")):
        add("negation", f"find the one that is not {texture}", f"not {texture}", other, where(texture=other))
    for side, (axis, sign) in SIDES.items():
        along = [sign * s.centre[axis] for s in shapes]
        ranked = sorted(along)
        best = along.index(ranked[-1])
        clear = ranked[-1] - ranked[-2] >= GRID  # nearer than that, "farthest" is a matter of opinion
        add("position", f"find the one farthest to the {side}", f"farthest {side}", side, [best] if clear else [])
    return found


def _paint(shapes: tuple[Shape, ...], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Picture [112, 112, 3]: gradient background, shapes, noise of +-4 levels."""
    ramp = np.arange(SIDE, dtype=np.float32) * (100.0 / (SIDE - 1))
    canvas = np.full((SIDE, SIDE, 3), 40.0, dtype=np.float32)
    canvas[:, :, 0] += ramp[None, :]
    canvas[:, :, 2] += ramp[:, None]
    for shape in shapes:
        x1, y1, x2, y2 = shape.box
        colour = np.array(COLOURS[shape.colour], dtype=np.float64)
        fill = np.broadcast_to(colour, (y2 - y1, x2 - x1, 3)).copy()
        if shape.texture == "striped":
            fill[:, (np.arange(x2 - x1) // 4) % 2 == 1] = 0.25 * colour + 0.75 * 255.0
        mask = _stamp(shape.form, x2 - x1)
        canvas[y1:y2, x1:x2][mask] = fill[mask]
    canvas += rng.integers(-4, 5, size=canvas.shape, dtype=np.int8)
    return canvas.clip(0, 255).astype(np.uint8)


def mask_of(shape: Shape) -> NDArray[np.bool_]:
    """Dense mask bool [112, 112] of one shape, as drawn."""
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    x1, y1, x2, y2 = shape.box
    mask[y1:y2, x1:x2] = _stamp(shape.form, x2 - x1)
    return mask


def solution_text(shape: Shape) -> str:
    """The ground truth of a shape in the released `<box>..</box><points>..</points>` form."""
    (x1, y1, x2, y2), ((ax, ay), (bx, by)) = shape.box, shape.points
    return f"<box>({x1},{y1}),({x2},{y2})</box><points>({ax},{ay}),({bx},{by})</points>"


def sample(seed: int, index: int) -> ShapesSample:
    """Scene number `index` of the world `seed`, with one query that fits exactly one shape.

    Args:
        seed: names the world; training, held-out and pre-training scenes use different ones.
        index: non-negative number of the scene.

    Returns:
        A sample whose image is a 112 x 112 RGB PIL image, and whose target carries the box, two points, polygon, mask
        and the boxes of the other shapes, all in pixels.

    Raises:
        ValueError: if `seed` or `index` is negative.
    """
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index must be non-negative, got seed={seed}, index={index}")
    rng = np.random.default_rng([seed, index])
    shapes = _place(rng)
    kinds = _candidates(shapes)
    while not kinds:  # no query singles out a shape: three of the same colour and form, say
        shapes = _place(rng)
        kinds = _candidates(shapes)
    of_kind = kinds[sorted(kinds)[int(rng.integers(len(kinds)))]]
    question = of_kind[int(rng.integers(len(of_kind)))]
    shape = shapes[question.target]
    target = Target(
        box=shape.box,
        points=shape.points,
        image_size=(SIDE, SIDE),
        mask=mask_of(shape),
        polygons=(shape.polygon,),
        other_boxes=tuple(s.box for i, s in enumerate(shapes) if i != question.target),
        text=solution_text(shape),
    )
    return ShapesSample(
        id=f"shapes-{seed}-{index}",
        image=Image.fromarray(_paint(shapes, rng)),
        query=question.text,
        target=target,
        scene=Scene(shapes, seed, index),
        question=question,
    )


def stream(seed: int, start: int = 0) -> Iterator[ShapesSample]:
    """Samples `start`, `start + 1`, ... of the world `seed`, without end."""
    index = start
    while True:
        yield sample(seed, index)
        index += 1


def dataset(seed: int, start: int, count: int) -> Dataset:
    """`count` samples as a `datasets.Dataset` in the form that TRL's `GRPOTrainer` takes.

    Columns: `prompt` (conversation of one user turn), `image` (PIL), `solution` (ground truth text), `id`.
    """
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    rows: dict[str, list[Any]] = {"prompt": [], "image": [], "solution": [], "id": []}
    for item in (sample(seed, index) for index in range(start, start + count)):
        rows["prompt"].append([{"role": "user", "content": item.query}])
        rows["image"].append(item.image)
        rows["solution"].append(item.target.text)
        rows["id"].append(item.id)
    turn = {"role": Value("string"), "content": Value("string")}
    features = Features({"prompt": [turn], "image": ImageFeature(), "solution": Value("string"), "id": Value("string")})
    return Dataset.from_dict(rows, features=features)


def from_id(identifier: str) -> ShapesSample:
    """The sample whose `id` is `shapes-SEED-INDEX`.

    Raises:
        ValueError: if the text is not of that form.
    """
    parts = identifier.split("-")
    if len(parts) != 3 or parts[0] != "shapes" or not (parts[1].isdigit() and parts[2].isdigit()):
        raise ValueError(f"id: {identifier!r:.80} is not of the form shapes-SEED-INDEX")
    return sample(int(parts[1]), int(parts[2]))


def export_reasonseg(folder: str | Path, seed: int, count: int) -> Path:
    """Write `count` scenes as a ReasonSeg folder: a PNG and a JSON with `text`, `is_sentence` and `shapes` each."""
    from dpad_fast.data import reasonseg

    scenes = (sample(seed, index) for index in range(count))
    # The outlines alone: the world draws pixel centres, and by that mask they would be none of its outlines.
    return reasonseg.write((replace(item, target=_outlined(item)) for item in scenes), folder)


def _outlined(item: ShapesSample) -> Target:
    return Target(polygons=item.target.polygons, image_size=item.target.image_size)
