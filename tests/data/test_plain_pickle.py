"""The reader of plain pickles: it gives what was stored, and refuses by name whatever plain data does not need."""

import collections
import contextlib
import os
import pickle
import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpad_fast.data.plain_pickle import DEEPEST, loads

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
PLAIN = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner), max_leaves=20
)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@given(value=PLAIN)
@settings(deadline=None, max_examples=50)
def test_plain_data_comes_back(protocol, value):
    value = pickle.loads(pickle.dumps(value, protocol))  # a float of protocol 0 is the text of one
    if len(str(value)) < 5000:
        found = loads(pickle.dumps(value, protocol), "x.p")
        assert found == value
        assert repr(found) == repr(value)  # True is no 1, 1.0 no 1


@given(data=st.binary(max_size=60))
def test_noise_is_read_or_refused_and_raises_nothing_else(data):
    with contextlib.suppress(ValueError):
        loads(data, "x.p")


def test_every_cut_of_a_pickle_is_refused():
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        whole = pickle.dumps([{"ref_id": 5, "sent": "the left one", "score": 0.5, "big": 1 << 70}], protocol)
        for end in range(len(whole)):
            with pytest.raises(ValueError, match=r"x\.p: byte \d+: "):
                loads(whole[:end], "x.p")


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"S'caf\\xc3\\xa9'\n.", "caf\u00e9"),  # Python 2's repr of UTF-8
        (b"U\x05caf\xc3\xa9.", "caf\u00e9"),
        (b"U\x04caf\xe9.", "caf\u00e9"),  # and of Latin-1
        (b'S"it\'s \\\\ \\n"\n.', "it's \\ \n"),
        (b"Vcaf\\u00e9\n.", "caf\u00e9"),
        (b"T\x02\x00\x00\x00hi.", "hi"),
        (b"I01\n.", True),
        (b"I12\n.", 12),
        (b"L12L\n.", 12),
        (b"F0.5\n.", 0.5),
        (b"(dp0\nS'ref_id'\np1\nI5\ns.", {"ref_id": 5}),
        (b"(lp0\nI1\naI2\na.", [1, 2]),
        (b"(I1\nI2\nl.", [1, 2]),
        (b"(I1\nI2\nt.", [1, 2]),
        (b"\x80\x02K\x01K\x02\x86.", [1, 2]),
        (b"]q\x00(K\x07e.", [7]),
    ],
)
def test_what_python_2_wrote(data, value):
    assert loads(data, "x.p") == value


class Run:
    def __reduce__(self):
        return os.system, ("echo owned > owned.txt",)


HOSTILE = {
    "GLOBAL asks for 'posix.system'": pickle.dumps(Run(), 2),
    "byte 0: the opcode GLOBAL": pickle.dumps(Run(), 0),
    "STACK_GLOBAL asks for 'posix.system'": pickle.dumps(Run(), 4),
    "GLOBAL asks for 'collections.OrderedDict'": pickle.dumps(collections.OrderedDict(a=1), 2),
    "INST asks for 'os.system'": b"(S'ls'\nios\nsystem\n.",
    "EXT1": b"\x82\x01.",
    "EXT2": b"\x83\x01\x00.",
    "EXT4": b"\x84\x01\x00\x00\x00.",
    "REDUCE": b"])R.",
    "BUILD": b"]}b.",
    "NEWOBJ": b"])\x81.",
    "NEWOBJ_EX": b"])}\x92.",
    "OBJ": b"(]o.",
    "PERSID": b"Pname\n.",
    "BINPERSID": b"K\x01Q.",
    "BYTEARRAY8": b"\x96" + struct.pack("<Q", 1 << 40) + b".",
    "NEXT_BUFFER": b"\x97.",
    "READONLY_BUFFER": b"\x98.",
    "EMPTY_SET": b"\x8f.",
    "FROZENSET": b"(\x91.",
    "BINBYTES": b"B\x01\x00\x00\x00a.",
    "POP": b"]0.",
    "POP_MARK": b"(1.",
    "DUP": b"]2.",
    "0xff is no opcode": b"\xff.",
}


@pytest.mark.parametrize("named", HOSTILE)
def test_what_runs_or_builds_more_than_plain_data_is_refused_by_name(named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=named):
        loads(HOSTILE[named], "refs(unc).p")
    assert list(tmp_path.iterdir()) == []


BOMBS = {
    "cut: 1099511627776 bytes wanted": b"\x8d" + struct.pack("<Q", 1 << 40) + b".",
    "cut: 4294967295 bytes wanted": b"T\xff\xff\xff\xff.",
    "a number of 2147483647 bytes": b"\x8b\xff\xff\xff\x7f.",
    "a number of 100000 characters": b"I" + b"9" * 100000 + b"\n.",
    "a number of 100001 characters": b"L" + b"9" * 100000 + b"L\n.",
    "the memo has nothing at 4294967295": b"j\xff\xff\xff\xff.",
    "lies in itself": b"]q\x00h\x00a.",
    "it may lie in itself": b"]q\x00]q\x01ah\x01h\x00a.",
    "more than 32 deep": b"]" * 100000 + b"a" * 99999 + b".",
}


@pytest.mark.parametrize("named", BOMBS)
def test_bombs_are_refused_within_the_memory_of_their_file(named):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=named):
            loads(BOMBS[named], "x.p")
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()


def test_a_far_place_in_the_memo_takes_no_memory():
    tracemalloc.start()
    try:
        assert loads(b"Vx\nr\xff\xff\xff\xff.", "x.p") == "x"
        assert loads(b"Vx\np" + b"9" * 18 + b"\n.", "x.p") == "x"
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def nested(deep):
    value = "leaf"
    for i in range(deep):
        value = [value] if i % 2 else {"a": value}
    return value


def test_as_deep_as_plain_data_may_be_and_one_more():
    assert loads(pickle.dumps(nested(DEEPEST), 2), "x.p") == nested(DEEPEST)
    with pytest.raises(ValueError, match="more than 32 deep"):
        loads(pickle.dumps(nested(DEEPEST + 1), 2), "x.p")


def test_a_chain_that_is_built_from_its_outer_end_is_refused():
    chain = b"]q\x00]q\x01a"  # the first list holds the second; now something goes into that
    with pytest.raises(ValueError, match="lies in another one is changed"):
        loads(chain + b"h\x01K\x05a.", "x.p")


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "ends before its STOP"),
        (b"garbage", "BINGET|GET|BINPUT|no opcode|memo|pickle"),
        (b"(.", "leaves 0 objects"),
        (b"K\x01K\x02.", "leaves 2 objects"),
        (b"(K\x01.", "leaves 1 objects|MARK"),
        (b"e.", "no MARK is open"),
        (b"]K\x01(a.", "no list"),
        (b"K\x01K\x02a.", "no list"),
        (b"]K\x01K\x02s.", "no dict"),
        (b"}(K\x01u.", "a key without a value"),
        (b"}]K\x02s.", "a key that is neither"),
        (b"\x80\x09.", "protocol 9"),
        (b"S'a\\qb'\n.", "unknown escape"),
        (b"Sabc\n.", "without quotes"),
        (b"Ix\n.", "not a readable pickle"),
        (b"X\x01\x00\x00\x00\xff.", "not a readable pickle"),
        (b"K\x01\x86.", "more items than there are"),
        (b"q\x00.", "not a readable pickle"),
        (b"a.", "not a readable pickle"),
    ],
)
def test_broken_pickles_are_named(data, named):
    with pytest.raises(ValueError, match=named) as caught:
        loads(data, "refs(unc).p")
    assert str(caught.value).startswith("refs(unc).p: byte ")
