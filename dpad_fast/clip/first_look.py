"""The choice of a guarded encoder's first look: what is expected to cost least, and float32 where none of them pays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from dpad_fast.clip.margins import Calibration, Look
from dpad_fast.clip.tokens import Ids
from dpad_fast.clip.tower.choose import Forwards
from dpad_fast.clip.tower.forward import Forward

# What a first look costs on a GPU, in float32 passes. By data sheets products in half precision run at 16 times the
# rate of float32 (A100, H100), TF32 at 8 times; norms, copies and launches do not. An estimate, on the high side.
_COST = {"float16": 0.25, "bfloat16": 0.25, "tf32": 0.4}
# A picture is embedded again if one of its completions is near: trainers sample about so many for each.
_GROUP = 8


NO_LOOK = Look("float32", 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Chosen:
    """An encoder's forwards by whether they are exact, and the candidates for the first look as they were measured."""

    forwards: dict[bool, Forward]
    looks: tuple[Look, ...] = ()

    @property
    def used(self) -> Look:
        """The first look that is used; without margins where it is exact or was not measured."""
        return next((look for look in self.looks if look.used), NO_LOOK)


def expected_cost(look: Look) -> float:
    """What a guard with this first look is expected to cost on a GPU, in float32 passes.

    The second look is taken for as dear as if all pictures were embedded again that have a completion near the
    threshold; what a guard really repeats is less.
    """
    return _COST[look.precision] + 1 - (1 - look.near) ** _GROUP


def best_look(looks: Sequence[Look], precision: str) -> int | None:
    """Which of the looks measured on a GPU to take; None: none, because float32 alone is expected to be faster.

    Args:
        looks: at most one of each precision.
        precision: "guarded", which takes the least expected cost; or "bfloat16", which repeats nothing and takes the
            least error of those of half precision.
    """
    sound = [i for i, look in enumerate(looks) if look.sound]
    if precision == "bfloat16":
        return min(sound, key=lambda i: looks[i].margin, default=None)
    cheapest = min(sound, key=lambda i: (expected_cost(looks[i]), looks[i].margin), default=None)
    return cheapest if cheapest is not None and expected_cost(looks[cheapest]) < 1 else None


def choose_first_look(made: Forwards, precision: str, calibrate: Callable[[Forward], Calibration]) -> Chosen:
    """The forwards of an encoder.

    Args:
        made: what can embed here.
        precision: of the encoder.
        calibrate: measures against the exact forward.

    Raises:
        ValueError: nothing embeds with finite numbers.
    """
    exact, reduced = made.exact, made.reduced
    if made.candidates:
        assert exact is not None, "candidates are measured against the exact forward"
        return _of_candidates(made, exact, precision, calibrate(exact))
    if exact is None or reduced is None:
        found = {True: exact, False: reduced}
        return Chosen({key: made.finish(forward) for key, forward in found.items() if forward is not None})
    if reduced is exact:
        return Chosen({True: exact, False: exact})
    look = calibrate(exact).look(reduced)
    return Chosen({True: exact, False: reduced if look.sound else exact}, (look._replace(used=look.sound),))


def _of_candidates(made: Forwards, exact: Forward, precision: str, calibration: Calibration) -> Chosen:
    looks: list[Look] = []
    kept: tuple[int, Forward] | None = None
    for candidate in made.candidates:
        forward = candidate.make()
        missing = Look(candidate.precision, float("nan"), float("nan"), 1.0)
        looks.append(missing if forward is None else calibration.look(forward))
        best = best_look(looks, precision)
        if best == len(looks) - 1 and forward is not None:
            kept = best, forward  # the one before is freed: at most two are on the GPU
    if kept is None:
        if precision == "bfloat16":
            raise ValueError("no precision of this GPU gives finite embeddings; are the model's weights sound?")
        return Chosen(dict.fromkeys((True, False), made.finish(exact)), tuple(looks))
    at, forward = kept
    looks[at] = looks[at]._replace(used=True)
    if precision == "guarded":
        return Chosen({True: made.finish(exact), False: made.finish(forward)}, tuple(looks))
    first = made.finish(forward)
    if forward.precision != "bfloat16":  # the name promises a result wherever bfloat16 has one
        first = Reserved(first, next(other.again for other in made.candidates if other.precision == "bfloat16"))
    return Chosen({False: first}, tuple(looks))


class Reserved:
    """A forward whose rows that are not finite are computed again by another one, made when first needed.

    It waits for the GPU after each call. A guard does without: it repeats such rows as it does those near a threshold.
    """

    def __init__(self, first: Forward, again: Callable[[], Forward]) -> None:
        self.name = first.name
        # Rows of the reserve are in no guard's margin: a cache that is shared must tell them from the first's.
        self.precision = f"{first.precision} or bfloat16"
        self._first, self._again = first, again
        self._reserve: Forward | None = None

    def texts(self, rows: Sequence[Ids], threads: int) -> torch.Tensor:
        """See `Forward`."""
        found = self._first.texts(rows, threads)
        bad = _not_finite(found)
        return _mended(found, bad, self._other().texts([rows[i] for i in bad], threads)) if bad else found

    def images(self, pixels: torch.Tensor, threads: int) -> torch.Tensor:
        """See `Forward`."""
        found = self._first.images(pixels, threads)
        bad = _not_finite(found)
        return _mended(found, bad, self._other().images(pixels[bad], threads)) if bad else found

    def _other(self) -> Forward:
        if self._reserve is None:
            self._reserve = self._again()
        return self._reserve


def _mended(found: torch.Tensor, bad: list[int], again: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return found.index_copy(0, torch.tensor(bad, device=found.device), again.to(found.device))


def _not_finite(values: torch.Tensor) -> list[int]:
    bad: list[int] = (~torch.isfinite(values).all(dim=1)).nonzero().flatten().tolist()
    return bad
