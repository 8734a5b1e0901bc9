"""Many clients while their server is killed and started again: is every row scored, once, and right?"""

from __future__ import annotations

import random
import signal
import threading
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import dpad_fast as df
from dpad_fast.testing import rewards as shared
from dpad_fast.testing.serving import Running

_PICTURES = 12


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        scored: rows that were answered.
        wrong: those whose total is another than the scorer's.
        failures: what clients raised.
        restarts: how often the server was killed and started again.
        seconds: from the first request to the last answer.
    """

    scored: int = 0
    wrong: int = 0
    failures: list[str] = field(default_factory=list)
    restarts: int = 0
    seconds: float = 0.0


def soak(clients: int, rows: int, kills: int = 1, seed: int = 0) -> Outcome:
    """Runs it, with the built-in encoder.

    Args:
        clients: threads, each with a `RemoteScorer` of its own.
        rows: rows of each, in requests of 1 to 40.
        kills: how often the server is killed (SIGKILL), evenly over the rows.
        seed: of the completions.
    """
    texts, targets, images = _rows(200, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes that the model saw
        scorer = df.RewardScorer(df.RewardConfig.preset("dpad", shape="margin"), df.load_encoder("shapes"))
        expected = scorer.score(texts, targets, images).total.tolist()
    options = ("--set", "shape=margin", "--window-ms", 5)
    server = Running(*options)
    outcome, lock = Outcome(), threading.Lock()

    def client(number: int) -> None:
        remote = df.RemoteScorer(server.url, retry_s=300)
        rng = random.Random(seed * 1000 + number)
        left = rows
        try:
            while left:
                chosen = [rng.randrange(len(texts)) for _ in range(min(left, rng.randrange(1, 41)))]
                picked = [texts[i] for i in chosen], [targets[i] for i in chosen], [images[i] for i in chosen]
                found = remote.score(*picked).total.tolist()
                with lock:
                    outcome.scored += len(found)
                    outcome.wrong += sum(f != expected[i] for f, i in zip(found, chosen, strict=True))
                left -= len(chosen)
        except Exception as error:  # whatever it is, it is what is looked for
            with lock:
                outcome.failures.append(f"client {number}: {type(error).__name__}: {error}")
        finally:
            remote.close()

    started = time.perf_counter()
    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        for kill in range(kills):
            due = clients * rows * (kill + 1) / (kills + 2)
            while outcome.scored < due and any(thread.is_alive() for thread in threads):
                time.sleep(0.002)
            port = server.port
            server.stop(signal.SIGKILL)
            server = Running(*options, port=port)
            outcome.restarts += 1
        for thread in threads:
            thread.join()
        outcome.seconds = time.perf_counter() - started
    finally:
        server.stop()
    return outcome


def _rows(count: int, seed: int) -> tuple[list[str], list[Any], list[Any]]:
    """Completions good and hostile."""
    rng = random.Random(seed)
    captions = [f"a {shared.WORDS[i % len(shared.WORDS)]} circle" for i in range(count)]
    texts = [shared.hostile(rng) if i % 3 == 0 else shared.completion(caption=captions[i]) for i in range(count)]
    pictures = [shared.picture(i) for i in range(_PICTURES)]
    return texts, [df.Target.parse(shared.SOLUTION)] * count, [pictures[i % _PICTURES] for i in range(count)]
