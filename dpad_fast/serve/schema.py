"""The bodies that the server reads and writes, as types: they check requests and become the OpenAPI page."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, Field

Entry = TypeVar("Entry")


class _FirstFault(FailFast):
    """Ends a list at its first wrong entry: one of nothing else would become a thousand times its bytes in messages."""

    def __hash__(self) -> int:  # which an alternative of a union needs
        return hash(self.fail_fast)


Entries = Annotated[list[Entry], _FirstFault()]
Number = float
BoxIn = tuple[Number, Number, Number, Number]
PointIn = tuple[Number, Number]
SizeIn = tuple[int, int]
Side = Annotated[int, Field(ge=0, le=1 << 30)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    # Without coercion: "12" is no number and 1 is no text, as in the scorer itself.
    # Fields are called model_size, which earlier pydantic takes for names of its own.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


class TextIn(_Strict):
    """Text that is no valid Unicode, as base64 of its UTF-8 with lone surrogates."""

    base64: str


class FailureIn(_Strict):
    """An entry that the caller could not read: its row is left unscored, with this as the error."""

    error: Annotated[str, Field(max_length=2000)]


class MaskIn(_Strict):
    """A mask in COCO's compressed run lengths."""

    size: Annotated[tuple[int, int], Field(description="[height, width]")]
    counts: str


class TargetIn(_Strict):
    """A ground truth, in pixels of the picture; the fields are those of `dpad_fast.Target`."""

    box: BoxIn | None = None
    points: tuple[PointIn, PointIn] | None = None
    image_size: Annotated[SizeIn | None, Field(description="[width, height]")] = None
    mask: MaskIn | None = None
    ignore: MaskIn | None = None
    polygons: Entries[Entries[PointIn]] | None = None
    objects: Entries[tuple[BoxIn, PointIn]] | None = None
    other_boxes: Entries[BoxIn] | None = None
    text: str | TextIn = ""


class PictureIn(_Strict):
    """A picture, by exactly one of `sha256`, `base64` and `path`; or the `error` of a caller who has none.

    Where no term looks at pixels: its `size` alone, or why its file is `unreadable`, an error only if its size counts.
    """

    sha256: Annotated[Sha256 | None, Field(description="of bytes that PUT /pictures/{sha256} brought")] = None
    base64: Annotated[str | None, Field(description="an encoded file, or raw pixels where there is a shape")] = None
    path: Annotated[str | None, Field(description="inside the server's --root", max_length=4096)] = None
    error: Annotated[str | None, Field(max_length=2000)] = None
    size: Annotated[tuple[Side, Side] | None, Field(description="[width, height]")] = None
    unreadable: Annotated[str | None, Field(max_length=2000)] = None
    shape: Annotated[
        Entries[Annotated[int, Field(ge=1, le=1 << 20)]] | None,
        Field(description="of raw pixels, uint8", min_length=2, max_length=3),
    ] = None


class PictureReply(BaseModel):
    """The name of a picture that was sent."""

    sha256: Sha256


class ScoreRequest(_Strict):
    """N rows, as the arguments of `RewardScorer.score`."""

    completions: Entries[str | TextIn | FailureIn]
    targets: Annotated[
        Entries[str | TextIn | TargetIn | FailureIn], Field(description="ground truths, or solutions' text")
    ]
    images: Entries[PictureIn] | None = None
    image_keys: Annotated[
        Entries[int | None] | None, Field(description="numbers: pictures of equal numbers must be equal")
    ] = None
    key_names: Annotated[dict[str, str], Field(description="what to call a number in a message")] = {}
    model_sizes: Annotated[
        Entries[SizeIn | FailureIn | None] | None,
        Field(description="[width, height] of the pictures that the model saw"),
    ] = None


class ScoreReply(BaseModel):
    """The scores; null is NaN: nothing was compared, or the row was left unscored (see errors)."""

    total: list[float | None]
    terms: dict[str, list[float | None]]
    similarity: dict[str, list[float | None]]
    reasons: list[str | None]
    errors: list[str | None]
    timings: dict[str, float]


class OpenRlhfRequest(BaseModel):
    """What OpenRLHF posts to `remote_url`."""

    query: Entries[str]
    prompts: Entries[str]
    labels: list[Any]


class OpenRlhfReply(BaseModel):
    """What OpenRLHF reads: the totals; the same divided by the sum of the weights; terms for its logs."""

    rewards: list[float]
    scores: list[float]
    extra_logs: dict[str, list[float]]


class SlimeRequest(BaseModel):
    """What slime posts to `--rm-url`."""

    prompt: Any = None
    response: str
    label: Any = None


class Label(_Strict):
    """A label of OpenRLHF or slime that says more than the solution: an object, or the JSON text of one."""

    solution: str
    image: Annotated[str | None, Field(description='a path inside --root, "sha256:HEX", or a data URI')] = None
    image_size: SizeIn | None = None
    model_size: SizeIn | None = None


class Problem(BaseModel):
    """Why a request was not answered."""

    error: str
    missing: Annotated[list[str], Field(description="409: pictures that are to be sent first")] = []
