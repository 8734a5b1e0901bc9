"""One file of embeddings in several processes: killed writers, many at once, and one that begins it again."""

import multiprocessing
import os
import signal
import time

import pytest
import torch

from dpad_fast.clip import store as store_module
from dpad_fast.clip.store import EmbeddingStore


def _fill(folder, number, started):
    store = EmbeddingStore(folder)
    started.set()
    for i in range(number, 10_000_000, 4):
        store.put({f"{i % 500}-{j}".encode(): torch.full((64,), float(i % 500)) for j in range(20)})


def _check(folder, number, result):
    store = EmbeddingStore(folder)
    wrong = 0
    for i in range(60):
        key = f"{(i * 7 + number) % 40}".encode()
        found = store.get([key]).get(key)
        wrong += found is not None and found.tolist() != [float(key)] * 8
        store.put({key: torch.full((8,), float(key))})
    result.put((number, wrong))


def test_killed_while_writing(tmp_path):
    context = multiprocessing.get_context("fork")
    for _ in range(3):
        started = context.Event()
        process = context.Process(target=_fill, args=(tmp_path, 0, started))
        process.start()
        assert started.wait(20)
        time.sleep(0.15)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        store = EmbeddingStore(tmp_path)
        count = len(store)
        assert count > 0
        assert count % 20 == 0  # whole transactions
        keys = [f"{i}-{j}".encode() for i in range(500) for j in range(20)]
        for key, value in store.get(keys).items():
            assert value.tolist() == [float(key.split(b"-")[0])] * 64
        store.close()


def test_four_processes_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_WAIT_S", 60.0)  # this machine's load must not decide
    context = multiprocessing.get_context("fork")
    result = context.Queue()
    processes = [context.Process(target=_check, args=(tmp_path, i, result)) for i in range(4)]
    for process in processes:
        process.start()
    found = dict(result.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert found == dict.fromkeys(range(4), 0)
    assert len(EmbeddingStore(tmp_path)) == 40


def test_another_process_began_the_file_again(tmp_path):
    first, second = EmbeddingStore(tmp_path), EmbeddingStore(tmp_path)
    first.put({b"a": torch.ones(4)})
    assert len(second) == 1
    first._begin_again = lambda what: None  # it keeps its connection
    with pytest.warns(RuntimeWarning, match="thrown away"):
        second._begin_again("a test")
    second.put({b"b": torch.ones(4)})
    first.put({b"c": torch.ones(4)})
    assert sorted(second.get([b"a", b"b", b"c"])) == [b"b", b"c"]
