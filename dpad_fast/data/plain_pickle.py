"""Pickles of plain data: lists, dictionaries, strings and numbers, and nothing else, whatever the file asks for.

RefCOCO's `refs(*).p` are pickles, some of them of Python 2. `pickle.load` runs what a file says and sets aside as much
memory as a file asks for (a place in the memo, the size of an array), so it is not used here, nor is a subclass of its
reader. This one knows the opcodes that plain data needs, keeps what was stored in a dictionary, and refuses every other
opcode by its name. Memory and time grow with the size of the file.
"""

from __future__ import annotations

import pickletools
import re
import struct
from collections.abc import Callable
from typing import Any

DEEPEST = 32  # containers in one another; RefCOCO has 4
_LONGEST_NUMBER = 64  # characters or bytes
_ESCAPES = {b"\\": b"\\", b"'": b"'", b'"': b'"', b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)


def loads(data: bytes, name: str) -> Any:
    """Reads a pickle of plain data, of protocol 0 to 5.

    Args:
        data: the whole pickle.
        name: what to call it in an error.

    Returns:
        Lists, dictionaries, strings, integers, floats, booleans and None. Tuples come as lists; strings of Python 2,
        which are bytes, as UTF-8, or as Latin-1 where they are none.

    Raises:
        ValueError: an opcode that plain data does not need (its name is in the message, and what it asks for), a
            container inside itself or in more than 32 others, a broken or cut pickle; begins with `name`.
    """
    reader = _PickleReader(data)
    try:
        return reader.read()
    except _BadPickle as error:
        raise ValueError(f"{name}: byte {reader.start}: {error}") from None
    except (ValueError, IndexError, KeyError, TypeError, struct.error, OverflowError) as error:
        what = str(error) or type(error).__name__
        raise ValueError(f"{name}: byte {reader.start}: not a readable pickle: {what:.120}") from None


class _BadPickle(Exception):
    """A pickle that is refused; the message says why."""


class _PickleReader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0  # of the next byte
        self.start = 0  # of the opcode that is being read
        self.stack: list[Any] = []
        self.marks: list[int] = []  # heights of the stack
        self.memo: dict[int, Any] = {}
        self.heights: dict[int, int] = {}  # by identity: how many levels a container holds; nothing is freed meanwhile
        self.held: list[Any] = []  # every container, so that no identity comes twice
        self.closed: set[int] = set()  # containers that lie in another one, which are whole by then

    def read(self) -> Any:
        data, operations = self.data, _OPERATIONS
        while True:
            self.start = self.place
            if self.place >= len(data):
                raise _BadPickle("the pickle ends before its STOP")
            code = data[self.place]
            self.place += 1
            operation = operations.get(code)
            if operation is None:
                if code == ord("."):
                    break
                raise _BadPickle(self.refusal(code))
            operation(self)
        if len(self.stack) != 1 or self.marks:
            raise _BadPickle(f"the pickle leaves {len(self.stack)} objects, expected one")
        return self.stack[0]

    def refusal(self, code: int) -> str:
        known = pickletools.code2op.get(chr(code))  # type: ignore[attr-defined]
        if known is None:
            return f"{code:#04x} is no opcode; is this a pickle?"
        asked = "more than plain data"
        if known.name in ("GLOBAL", "INST"):
            lines = [line.decode("ascii", "replace") for line in self.data[self.place :][:200].split(b"\n")[:2]]
            asked = f"{'.'.join(lines)!r:.80}"
        elif known.name == "STACK_GLOBAL":
            asked = f"{'.'.join(f'{part}' for part in self.stack[-2:] if isinstance(part, str))!r:.80}"
        return (
            f"the opcode {known.name} asks for {asked}; only lists, dictionaries, strings and numbers are read. If you "
            "trust the file, save what it holds as JSON"
        )

    def take(self, count: int) -> bytes:
        end = self.place + count
        if end > len(self.data):
            raise _BadPickle(f"the pickle is cut: {count} bytes wanted, {len(self.data) - self.place} left")
        piece = self.data[self.place : end]
        self.place = end
        return piece

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.place)
        if end < 0:
            raise _BadPickle("the pickle is cut within a line")
        piece = self.data[self.place : end]
        self.place = end + 1
        return piece

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def short_line(self) -> bytes:
        piece = self.line()
        if len(piece) > _LONGEST_NUMBER:
            raise _BadPickle(f"a number of {len(piece)} characters")
        return piece

    def push_container(self, container: Any) -> None:
        self.held.append(container)
        self.heights[id(container)] = 1
        self.stack.append(container)

    def since_mark(self) -> list[Any]:
        if not self.marks:
            raise _BadPickle("no MARK is open")
        items = self.stack[self.marks[-1] :]
        del self.stack[self.marks.pop() :]
        return items

    def top(self, kind: type) -> Any:
        lowest = self.marks[-1] if self.marks else 0
        if len(self.stack) <= lowest or type(self.stack[-1]) is not kind:
            raise _BadPickle(f"an item is added to something that is no {kind.__name__}")
        if id(self.stack[-1]) in self.closed:
            raise _BadPickle("a container that lies in another one is changed, so it may lie in itself")
        return self.stack[-1]

    def enclose(self, container: Any, items: list[Any]) -> None:
        """Notes that `items` lie in `container` from now on."""
        for item in items:
            if type(item) is list or type(item) is dict:
                self.closed.add(id(item))
                if item is container:
                    raise _BadPickle("a container lies in itself")
                height = self.heights[id(item)] + 1
                if height > self.heights[id(container)]:
                    self.heights[id(container)] = height
                if height > DEEPEST:
                    raise _BadPickle(f"containers lie in one another, more than {DEEPEST} deep")

    def add(self, items: list[Any]) -> None:
        container = self.top(list)
        self.enclose(container, items)
        container.extend(items)

    def set(self, items: list[Any]) -> None:
        container = self.top(dict)
        if len(items) % 2:
            raise _BadPickle("a key without a value")
        keys, values = items[::2], items[1::2]
        if not all(isinstance(key, str | int | float | None) for key in keys):
            raise _BadPickle("a key that is neither string nor number")
        self.enclose(container, values)
        container.update(zip(keys, values, strict=True))


def _text_of(raw: bytes) -> str:
    """A string of Python 2."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _unescaped(match: re.Match[bytes]) -> bytes:
    found = match[1]
    if len(found) == 3:
        return bytes([int(found[1:], 16)])
    if found not in _ESCAPES:
        raise _BadPickle(f"a string with an unknown escape {match[0]!r}")
    return _ESCAPES[found]


def _string(reader: _PickleReader) -> str:
    raw = reader.line().strip()
    if len(raw) < 2 or raw[:1] != raw[-1:] or raw[:1] not in (b"'", b'"'):
        raise _BadPickle("a string without quotes")
    return _text_of(_ESCAPE.sub(_unescaped, raw[1:-1]))


def _int(reader: _PickleReader) -> int | bool:
    text = reader.short_line()
    return text == b"01" if text in (b"00", b"01") else int(text)


def _signed(reader: _PickleReader, count: int) -> int:
    if count > _LONGEST_NUMBER:
        raise _BadPickle(f"a number of {count} bytes")
    return int.from_bytes(reader.take(count), "little", signed=True)


def _push(value: Callable[[_PickleReader], Any]) -> Callable[[_PickleReader], None]:
    def operation(reader: _PickleReader) -> None:
        reader.stack.append(value(reader))

    return operation


def _proto(reader: _PickleReader) -> None:
    version = reader.number(1)
    if version > 5:
        raise _BadPickle(f"protocol {version} is unknown")


def _mark(reader: _PickleReader) -> None:
    reader.marks.append(len(reader.stack))


def _append(reader: _PickleReader) -> None:
    item = reader.stack.pop()
    reader.add([item])


def _set_item(reader: _PickleReader) -> None:
    value, key = reader.stack.pop(), reader.stack.pop()
    reader.set([key, value])


def _list_of(count: int | None) -> Callable[[_PickleReader], None]:
    """A list of the last items, or of those since the mark."""

    def operation(reader: _PickleReader) -> None:
        if count is None:
            items = reader.since_mark()
        else:
            lowest = reader.marks[-1] if reader.marks else 0
            if len(reader.stack) - lowest < count:
                raise _BadPickle("a tuple of more items than there are")
            items = reader.stack[len(reader.stack) - count :]
            del reader.stack[len(reader.stack) - count :]
        reader.push_container([])
        reader.add(items)

    return operation


def _dict_of(reader: _PickleReader) -> None:
    items = reader.since_mark()
    reader.push_container({})
    reader.set(items)


def _store(index: Callable[[_PickleReader], int]) -> Callable[[_PickleReader], None]:
    def operation(reader: _PickleReader) -> None:
        reader.memo[index(reader)] = reader.stack[-1]

    return operation


def _fetch(index: Callable[[_PickleReader], int]) -> Callable[[_PickleReader], None]:
    def operation(reader: _PickleReader) -> None:
        place = index(reader)
        if place not in reader.memo:
            raise _BadPickle(f"the memo has nothing at {place}")
        reader.stack.append(reader.memo[place])

    return operation


_OPERATIONS: dict[int, Callable[[_PickleReader], None]] = {
    ord(code): operation
    for code, operation in {
        "\x80": _proto,
        "\x95": lambda reader: reader.take(8) and None,  # a frame is how it was written, not what
        "(": _mark,
        "]": lambda reader: reader.push_container([]),
        ")": lambda reader: reader.push_container([]),
        "}": lambda reader: reader.push_container({}),
        "l": _list_of(None),
        "t": _list_of(None),
        "\x85": _list_of(1),
        "\x86": _list_of(2),
        "\x87": _list_of(3),
        "d": _dict_of,
        "a": _append,
        "e": lambda reader: reader.add(reader.since_mark()),
        "s": _set_item,
        "u": lambda reader: reader.set(reader.since_mark()),
        "N": _push(lambda reader: None),
        "\x88": _push(lambda reader: True),
        "\x89": _push(lambda reader: False),
        "I": _push(_int),
        "J": _push(lambda reader: _signed(reader, 4)),
        "K": _push(lambda reader: reader.number(1)),
        "M": _push(lambda reader: reader.number(2)),
        "L": _push(lambda reader: int(reader.short_line().removesuffix(b"L"))),
        "\x8a": _push(lambda reader: _signed(reader, reader.number(1))),
        "\x8b": _push(lambda reader: _signed(reader, reader.number(4))),
        "F": _push(lambda reader: float(reader.short_line())),
        "G": _push(lambda reader: struct.unpack(">d", reader.take(8))[0]),
        "S": _push(_string),
        "T": _push(lambda reader: _text_of(reader.take(reader.number(4)))),
        "U": _push(lambda reader: _text_of(reader.take(reader.number(1)))),
        "V": _push(lambda reader: reader.line().decode("raw-unicode-escape")),
        "X": _push(lambda reader: reader.take(reader.number(4)).decode("utf-8", "surrogatepass")),
        "\x8c": _push(lambda reader: reader.take(reader.number(1)).decode("utf-8", "surrogatepass")),
        "\x8d": _push(lambda reader: reader.take(reader.number(8)).decode("utf-8", "surrogatepass")),
        "p": _store(lambda reader: int(reader.short_line())),
        "q": _store(lambda reader: reader.number(1)),
        "r": _store(lambda reader: reader.number(4)),
        "\x94": _store(lambda reader: len(reader.memo)),
        "g": _fetch(lambda reader: int(reader.short_line())),
        "h": _fetch(lambda reader: reader.number(1)),
        "j": _fetch(lambda reader: reader.number(4)),
    }.items()
}
"""By opcode, but for STOP; what is not here is refused."""
