"""What a server may be asked, and what it refuses."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path

TOKEN_VARIABLE = "DPAD_FAST_TOKEN"


@dataclass(frozen=True)
class Settings:
    """Limits and rights of a server. Sizes are in bytes, times in seconds.

    Attributes:
        token: what callers must show, as `Authorization: Bearer TOKEN` or `?token=TOKEN`; None: nothing.
        hosts: the names by which a browser may address a server without a token; empty: any.
        root: the folder inside which callers may name pictures by path; None: nowhere.
        window_ms: how long the first row of a batch waits for others at most, in milliseconds.
        max_batch: rows of a batch.
        rows: rows of a request.
        queue: rows that are accepted and not yet answered; beyond, 503.
        body: bytes of a request.
        weight: what the JSON of a request may weigh (`unfolding.check_weight`): memory is a few hundred bytes each.
        picture: bytes of a picture.
        store: bytes of pictures that are kept by their hash; the least recently used go first.
        pixels: pixels of all pictures of a request.
        masks: pixels of all masks of a request, a byte each.
        held: bytes of bodies, pictures and masks that requests in flight hold; beyond, 503. One may bring half of it.
        head_s: how long a request's first line and headers may take to arrive.
        body_s: how long a body may take to arrive.
        answer_s: how long a request waits for its scores; then 503, and the same request id gets them later.
        answers: bytes of answers that are kept for callers who ask again.
    """

    token: str | None = None
    hosts: tuple[str, ...] = ()
    root: str | None = None
    window_ms: float = 10.0
    max_batch: int = 256
    rows: int = 4096
    queue: int = 16384
    body: int = 64 << 20
    weight: int = 1 << 19
    picture: int = 32 << 20
    store: int = 1 << 30
    pixels: int = 1 << 30
    masks: int = 1 << 29
    held: int = 2 << 30
    head_s: float = 20.0
    body_s: float = 60.0
    answer_s: float = 300.0
    answers: int = 64 << 20

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.type in ("int", "float") and not (value > 0 or (entry.name == "window_ms" and value == 0)):
                raise ValueError(f"{entry.name} must be above 0, got {value!r:.80}")
        if self.token is not None and (len(self.token) < 8 or not self.token.isascii() or not self.token.isprintable()):
            raise ValueError("token must have at least 8 printable ASCII characters")
        if self.root is not None:
            root = os.path.realpath(self.root)
            if not Path(root).is_dir():
                raise ValueError(f"root is no folder: {self.root!r:.200}")
            object.__setattr__(self, "root", root)


class Refusal(Exception):
    """A request that is not answered: a status, a reason, and headers."""

    def __init__(
        self, status: int, reason: str, *, missing: list[str] | None = None, retry_s: int | None = None
    ) -> None:
        super().__init__(reason)
        self.status, self.reason, self.missing, self.retry_s = status, reason, missing or [], retry_s
