"""How much a JSON text unfolds to when it is read, told before it is: a few of its bytes can become a kilobyte."""

from __future__ import annotations

from collections.abc import Sequence

from dpad_fast.serve.settings import Refusal

_KEY = 3  # what a key weighs beside its value: an unknown one is a message per type that its object might have been


def check_weight(texts: Sequence[bytes], most: int, name: str) -> None:
    """Refuses JSON texts that hold too much together.

    Their weight is the number of commas, opening brackets and three times of colons, which is above the number of their
    values. Those inside strings count too: telling them apart would be reading.

    Args:
        texts: JSON, or what claims to be.
        most: the weight that is read at once.
        name: of the texts, in the message.

    Raises:
        Refusal: 413.
    """
    if _KEY * sum(map(len, texts)) <= most:
        return
    weight = sum(text.count(b",") + text.count(b"[") + text.count(b"{") + _KEY * text.count(b":") for text in texts)
    if weight > most:
        how = "commas, opening brackets, three times colons"
        raise Refusal(413, f"{name} weigh {weight} ({how}), more than {most}: send fewer rows")
