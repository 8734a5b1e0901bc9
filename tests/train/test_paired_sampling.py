"""Sampling that belongs to the completion: the same on any number of processes, and distributed as it should be."""

import numpy as np
import pytest
import torch

from dpad_fast.train.paired_sampling import PairedNoise


def chosen(noise, scores, tokens=1):
    """[tokens, N] indices that some calls of a processor choose."""
    return torch.stack([noise(None, scores).argmax(dim=1) for _ in range(tokens)])


@pytest.mark.parametrize("processes", [2, 3, 6])
def test_shares_of_a_batch_get_what_the_whole_batch_gets(processes):
    scores = torch.randn(12, 50, generator=torch.Generator().manual_seed(1))
    whole = chosen(PairedNoise(7, (3, 0), 0, 12, 1.0), scores, tokens=5)
    share = 12 // processes
    parts = [
        chosen(PairedNoise(7, (3, 0), i * share, 12, 1.0), scores[i * share : (i + 1) * share], tokens=5)
        for i in range(processes)
    ]
    assert torch.equal(torch.cat(parts, dim=1), whole)


def test_one_token_is_left_for_each_row():
    out = PairedNoise(0, (0, 0), 0, 3, 1.0)(None, torch.randn(3, 9))
    assert (out == 0).sum(dim=1).tolist() == [1, 1, 1]
    assert torch.isneginf(out).sum().item() == 24


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_choices_are_distributed_as_the_softmax(temperature):
    logits = torch.tensor([0.0, 1.0, 2.0, -torch.inf])
    rows = 20_000
    counts = np.bincount(chosen(PairedNoise(5, (0, 0), 0, rows, temperature), logits.repeat(rows, 1))[0], minlength=4)
    wanted = torch.softmax(logits / temperature, dim=0).numpy()
    error = np.sqrt(wanted * (1 - wanted) / rows)
    assert counts[3] == 0
    assert (np.abs(counts / rows - wanted) <= 4 * error).all()


def test_seeds_steps_calls_and_tokens_are_unrelated():
    scores = torch.zeros(400, 1000)
    draws = [chosen(PairedNoise(*which, 0, 400, 1.0), scores)[0] for which in ((0, (0, 0)), (1, (0, 0)), (0, (1, 0)))]
    draws += [chosen(PairedNoise(0, (0, 1), 0, 400, 1.0), scores)[0]]
    draws += [chosen(PairedNoise(0, (0, 0), 0, 400, 1.0), scores, tokens=2)[1]]
    for i, one in enumerate(draws):
        assert all((one == other).float().mean() < 0.02 for other in draws[i + 1 :])
