"""How many pictures an encoder works on together: bounded in pixels, and of no consequence for the values."""

import torch

import dpad_fast as df
from dpad_fast.clip.images import Picture
from dpad_fast.clip.inputs import chunked, make_inputs
from dpad_fast.testing import rewards as shared
from dpad_fast.testing.serving import bomb


def test_few_large_files_are_decoded_together_and_many_small_ones(tmp_path):
    sides = (3000, 3500, 6000, 9000, 100, 100, 4000)
    files = [bomb_of(tmp_path, side, number) for number, side in enumerate(sides)]
    pictures = [Picture(str(file), "p") for file in files]
    regions = [(i, box) for i in range(len(files)) for box in (None, (0, 0, 50, 50))]
    found = [[index for index, _ in chunk] for chunk in chunked(pictures, regions)]
    # 2^26 pixels: 9 + 12.25 million; 36; 81 alone, for more than fit; the rest.
    assert found == [[0, 0, 1, 1, 2, 2], [3, 3], [4, 4, 5, 5, 6, 6]]
    held = [Picture(shared.picture(i), "p") for i in range(70)]
    assert [len(chunk) for chunk in chunked(held, [(i, None) for i in range(70)])] == [64, 6]
    assert chunked([], []) == []


def bomb_of(folder, side, number):
    place = folder / f"{number}.png"
    place.write_bytes(bomb(side, side))
    return place


def test_the_number_of_pixels_worked_on_together_changes_no_value(tiny, tmp_path, monkeypatch):
    files = []
    for i in range(5):
        files.append(str(tmp_path / f"{i}.png"))
        shared.picture(i).save(files[-1])
    boxes = [None, (10, 10, 60, 50), None, (0, 0, 30, 30), None]
    together = df.ClipEncoder.from_transformers(*tiny).embed_images(files, boxes)
    monkeypatch.setattr("dpad_fast.clip.inputs._PIXELS", 1)
    sizes = []
    monkeypatch.setattr(
        "dpad_fast.clip.step.make_inputs", lambda *given: sizes.append(len(given[2])) or make_inputs(*given)
    )
    alone = df.ClipEncoder.from_transformers(*tiny).embed_images(files, boxes)
    assert sizes[-5:] == [1] * 5
    torch.testing.assert_close(alone, together, atol=2e-6, rtol=0)
