"""What counts the length of a reasoning chain: words, or the tokens of a named tokenizer."""

from __future__ import annotations

from collections.abc import Callable


def tokenizer(name: str) -> Callable[[str], int]:
    """What counts a chain's length.

    Args:
        name: "words" (split at white space), "open_clip" (its BPE, without start and end), or a name or folder.

    Returns:
        Text -> number of tokens.

    Raises:
        ValueError: transformers cannot load it.
    """
    if name == "words":
        return lambda text: len(text.split())
    if name == "open_clip":
        import open_clip

        bpe = open_clip.SimpleTokenizer()
        return lambda text: len(bpe.encode(text))
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"--tokenizer {name!r:.80} cannot be loaded: {error}") from None
    return lambda text: len(found(text, add_special_tokens=False)["input_ids"])
