"""Sizes at which models see pictures, against transformers' own processors."""

import random
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from transformers.models.qwen2_vl import Qwen2VLImageProcessor, Qwen2VLImageProcessorPil

import dpad_fast as df
from dpad_fast.model_size import whole_size

FAMILIES = [
    {},  # the class's own: Qwen2-VL, Qwen2.5-VL
    {"max_pixels": 1003520, "min_pixels": 256 * 28 * 28},
    {"size": {"shortest_edge": 3136, "longest_edge": 12845056}},
    {"size": {"shortest_edge": 65536, "longest_edge": 16777216}, "patch_size": 16},  # Qwen3-VL
    {"size": {"shortest_edge": 112 * 112, "longest_edge": 112 * 112}},
    {"patch_size": 7, "merge_size": 3, "size": {"shortest_edge": 10, "longest_edge": 5000}},
]


def sizes(count):
    """Random sides of all magnitudes, sides at multiples and half multiples of a step, and both extremes."""
    rng = random.Random(5)
    found = [(1, 1), (1, 200), (200, 1), (13, 14), (14, 14), (42, 70), (4000, 20), (20, 4000), (3000, 2000), (640, 480)]
    found += [
        (step * i + off, step * j) for step in (14, 28, 32) for i in (1, 7, 36) for j in (2, 7) for off in (-1, 0)
    ]
    while len(found) < count:
        width, height = (int(2 ** rng.uniform(0, 13.5)) for _ in range(2))
        if max(width, height) <= 200 * min(width, height):
            found.append((width, height))
    return found


def peer(processor, size):
    """What the processor asks its backend to resize to."""
    return processor.resize(
        torch.empty(3, size[1], size[0], device="meta"),
        size=transformers.image_utils.SizeDict(**dict(processor.size)),
        resample=None,
        factor=processor.patch_size * processor.merge_size,
    )


@pytest.mark.parametrize("settings", FAMILIES)
def test_agrees_with_the_processor(settings, monkeypatch):
    processor = Qwen2VLImageProcessor(**settings)
    backend = type(processor).__mro__[1]
    monkeypatch.setattr(backend, "resize", lambda self, image, size, resample: size)  # no work on pixels
    for size in sizes(1500):
        found = peer(processor, size)
        assert df.model_size_for(size, processor) == (found.width, found.height), size


@pytest.mark.parametrize("kind", [Qwen2VLImageProcessor, Qwen2VLImageProcessorPil])
@pytest.mark.parametrize("settings", FAMILIES)
def test_agrees_with_the_patches_of_a_picture(kind, settings):
    processor = kind(**settings)
    for size in [(100, 60), (31, 400), (300, 9), (1, 1), (57, 57)]:
        picture = np.zeros((size[1], size[0], 3), np.uint8)
        _, rows, columns = processor(picture, input_data_format="channels_last")["image_grid_thw"][0]
        patch = processor.patch_size
        assert df.model_size_for(size, processor) == (int(columns) * patch, int(rows) * patch)


@pytest.mark.parametrize(("limit", "seen"), [(12845056, (2996, 1988)), (1003520, (1204, 812))])
def test_the_sizes_of_the_documents(limit, seen):
    assert df.model_size_for((3000, 2000), Qwen2VLImageProcessor(max_pixels=limit)) == seen
    assert df.model_size_for((640, 480), Qwen2VLImageProcessor(max_pixels=limit)) == (644, 476)


@pytest.mark.parametrize("settings", FAMILIES)
def test_settings_under_every_name(settings, tmp_path):
    """A saved processor, an older release's attributes, and the bare four numbers say the same."""
    import json

    processor = Qwen2VLImageProcessor(**settings)
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    limits = {"min_pixels": processor.size["shortest_edge"], "max_pixels": processor.size["longest_edge"]}
    parts = {"patch_size": processor.patch_size, "merge_size": processor.merge_size}
    older = type("Qwen2VLImageProcessorFast", (), {**limits, **parts})()
    old_size = type("Qwen2VLImageProcessor", (), {"size": limits, **parts})()
    file = {"image_processor_type": "Qwen2VLImageProcessor", **settings}
    forms = [saved, processor.to_dict(), older, old_size, file, {**limits, **parts}, {"image_processor": saved}]
    forms.append(SimpleNamespace(image_processor=processor))
    for size in sizes(80):
        assert {df.model_size_for(size, form) for form in forms} == {df.model_size_for(size, processor)}


def test_a_saved_file_with_both_settings_means_what_loading_it_means():
    file = {"min_pixels": 3136, "max_pixels": 401408, "size": {"shortest_edge": 3136, "longest_edge": 12845056}}
    loaded = Qwen2VLImageProcessor(**file)
    found = df.model_size_for((3000, 2000), {"image_processor_type": "Qwen2VLImageProcessor", **file})
    assert found == df.model_size_for((3000, 2000), loaded)
    assert found[0] * found[1] <= 401408


def test_other_families():
    from transformers.models.idefics3 import Idefics3ImageProcessorPil

    for processor in (Idefics3ImageProcessorPil(), {"processor_class": "InternVLProcessor"}):
        assert df.model_size_for((3000, 2000), processor) is None
    unchanged = Qwen2VLImageProcessor(do_resize=False)
    assert df.model_size_for((300, 20), unchanged) == (300, 20)


@pytest.mark.parametrize(
    ("size", "processor", "complaint"),
    [
        ((10, 2001), {}, "size is 10x2001: the processor refuses a side over 200 times the other"),
        ((0, 10), {}, r"size must be \(width, height\) in whole pixels, got \(0, 10\)"),
        ((10.5, 10), {}, r"size must be .* got \(10.5, 10\)"),
        ((True, 10), {}, r"size must be .* got \(True, 10\)"),
        (10, {}, "size must be .* got 10"),
        ((1, 2, 3), {}, "size must be"),
        ((10, 20), None, "processor is a NoneType, whose rule .* Pass its image processor"),
        ((10, 20), {"patch_size": 14}, "processor is a dictionary with patch_size"),
        ((10, 20), transformers.Qwen2_5_VLConfig(), "processor is a Qwen2_5_VLConfig"),
        ((10, 20), {"image_processor_type": "Qwen2VLImageProcessor", "max_pixels": "many"}, "max_pixels must be a pos"),
    ],
)
def test_refused_by_name(size, processor, complaint):
    given = Qwen2VLImageProcessor() if processor == {} else processor
    with pytest.raises(ValueError, match=complaint):
        df.model_size_for(size, given)


def test_whole_numbers_of_any_type():
    for size in (np.array([640, 480]), torch.tensor([640, 480]), [np.int32(640), 480.0], (640, 480)):
        assert df.model_size_for(size, Qwen2VLImageProcessor()) == (644, 476)


def test_needs_no_model_library():
    code = (
        "import sys, dpad_fast as df; print(df.model_size_for((640, 480), {'patch_size': 14, 'merge_size': 2,"
        " 'min_pixels': 3136, 'max_pixels': 10**6}), {'torch', 'torchvision', 'transformers'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split(") ") == ["(644, 476", "set()\n"]


@pytest.mark.parametrize("size", [(10**400, 5), (5, 10**400), (10**5000, 5), (2**31, 5)])
def test_a_side_that_no_picture_has_is_refused_by_name(size):
    with pytest.raises(ValueError, match=r"^model_sizes\[0\] must be .* at most 2147483647 pixels"):
        whole_size(size, "model_sizes[0]")
    assert whole_size((2**31 - 1, 5), "size") == (2**31 - 1, 5)
