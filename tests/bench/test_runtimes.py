"""The other runtimes of `bench.reward`: same rows as the hand-written way, and 8 bits as the hardware has them."""

import numpy as np
import pytest
import torch
from rich.console import Console

from bench.reward import eight_bits, report, runtimes
from bench.reward import work as ways


@pytest.fixture(scope="module")
def small():
    """A CLIP of two narrow layers with the real vocabulary, and transformers' fast processor."""
    from transformers import CLIPConfig, CLIPModel

    pytest.importorskip("open_clip")
    fast = ways.make_processors()[1]
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = CLIPConfig(text_config=tower, vision_config=tower | {"patch_size": 32}, projection_dim=16)
    torch.manual_seed(0)
    return CLIPModel(config).eval(), fast


@pytest.fixture(scope="module")
def work():
    return ways.make_work([ways.photograph(i) for i in range(2)], 80, seed=0)


def towers_of(model):
    parts = runtimes.examples(model)

    def call(tower, rows):
        with torch.inference_mode():
            return tower(torch.from_numpy(rows)).numpy()

    return runtimes.Towers(*(lambda rows, tower=parts[name][0]: call(tower, rows) for name in ("image", "text")))


def test_chunks_by_length_give_every_caption_its_own_row(small, work):
    model, processor = small
    seen = runtimes.Runtime(towers_of(model), processor)(work)
    torch.testing.assert_close(seen, ways.HandWritten(model, processor)(work), rtol=0, atol=1e-6)


def test_known_pictures_are_not_embedded_again(small, work):
    model, processor = small
    towers = towers_of(model)
    sizes = []
    counted = runtimes.Towers(lambda rows: sizes.append(len(rows)) or towers.image(rows), towers.text)
    way = runtimes.Runtime(counted, processor, remember=True)
    first, second = way(work), way(work)
    assert sizes == [4]  # two pictures and a box of each
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", ["OpenVINO float32", "ONNX Runtime float32", "OpenVINO int8", "ONNX Runtime int8"])
def test_a_runtime_computes_the_same_towers(small, work, name):
    pytest.importorskip("openvino" if name.startswith("OpenVINO") else "onnxruntime")
    model, processor = small
    made = dict(runtimes.contestants(model, processor, 1, work))[name]
    assert not isinstance(made, str), made
    seen = runtimes.Runtime(made, processor)(work)
    tolerance = 1e-5 if name.endswith("float32") else 0.1
    torch.testing.assert_close(seen, ways.HandWritten(model, processor)(work), rtol=0, atol=tolerance)


def test_a_missing_package_is_named(small, work, monkeypatch):
    model, processor = small
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)
    found = dict(runtimes.contestants(model, processor, 1, work))
    assert found["OpenVINO int8"] == "openvino is not installed"
    assert found["ONNX Runtime float32"] == "onnxruntime is not installed"


def test_eight_bits_are_whole_numbers_times_a_scale_of_each_row():
    rows = torch.randn(5, 64, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1e-3], [1], [7], [50], [0]])
    made = eight_bits.rounded(rows)
    scale = rows.abs().amax(1, keepdim=True) / 127
    assert float((made - rows).abs().div(scale.clamp(min=1e-30)).max()) <= 0.5 + 1e-4
    for row, step in zip(made, scale, strict=True):
        assert len(np.unique((row / step.clamp(min=1e-30)).round().numpy())) <= 255


def test_every_linear_layer_of_the_copy_is_in_eight_bits_and_the_model_is_untouched(small):
    model, _ = small
    before = {name: value.clone() for name, value in model.state_dict().items()}
    made = eight_bits.in_eight_bits(model)
    assert not any(isinstance(module, torch.nn.Linear) for module in made.modules())
    assert sum(isinstance(module, eight_bits.EightBits) for module in made.modules()) == 26
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("ratio", "state", "wrong", "said"),
    [
        (1.6, "cold", 0, "guarded is 1.6x as fast: met (1.5x)"),
        (1.9, "images known", 0, "guarded is 1.9x as fast: NOT met (2x)"),
        (1.2, "cold", 9, "guarded is 1.2x as fast; 9 decisions wrong here"),
    ],
)
def test_the_goal_speaks_of_runtimes_that_decide_as_float32_does(ratio, state, wrong, said):
    assert report.against_runtime(ratio, state, wrong) == said


def test_the_table_of_outputs_counts_wrong_decisions(small, work):
    from bench.reward import race

    model, processor = small
    plain = ways.HandWritten(model, processor)(work)
    towers = towers_of(model)
    flipped = runtimes.Towers(towers.image, lambda rows: -towers.text(rows))
    console = Console(record=True, width=150)
    wrong = race.compare_runtimes({"right": towers, "flipped": flipped}, processor, work, plain, console)
    assert wrong["right"] == 0
    assert wrong["flipped"] == len(plain)
    assert f"{len(plain)} (100.0%)" in console.export_text()
