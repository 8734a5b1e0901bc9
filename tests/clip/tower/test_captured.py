"""Towers that replay graphs, beside the same towers uncaptured: padded works, cuts, memory, launches."""

import gc
import re
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from dpad_fast.clip.tower import choose
from dpad_fast.clip.tower.captured import CapturedTowers
from dpad_fast.clip.tower.gpu_attention import GpuProducts
from dpad_fast.clip.tower.graphs import CudaRecorder
from dpad_fast.clip.tower.towers import Towers
from dpad_fast.clip.tower.weights import read_weights
from dpad_fast.testing.graphs import Again
from dpad_fast.testing.towers import by_sequence, own_forward

needs_gpu = pytest.mark.gpu
CPU = torch.device("cpu")
START, END = 3, 1


ATTENTION = {"variable lengths": by_sequence, "padded": None}


def clip(layers=2, width=32, side=32, vocabulary=60):
    """A CLIP of random weights, whose captions end with token 1."""
    from transformers import CLIPConfig, CLIPModel

    tower = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    tower["num_attention_heads"] = max(2, width // 64)
    text = {**tower, "vocab_size": vocabulary, "max_position_embeddings": 77, "bos_token_id": 0, "eos_token_id": END}
    config = CLIPConfig(
        text_config=text, vision_config={**tower, "image_size": side, "patch_size": 8}, projection_dim=16
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = CLIPModel(config).eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture(scope="module")
def weights():
    return read_weights(clip())


@pytest.fixture(scope="module", params=ATTENTION)
def pair(request, weights):
    """Towers, the same captured, and the recorder."""
    products, recorder = GpuProducts(torch.float32, ATTENTION[request.param]), Again()
    towers = Towers(weights, products, rows_at_once=2048)
    return towers, CapturedTowers(towers, recorder), recorder


def close(found, expected):
    # Equal up to the order of additions, which the products choose by the number of rows.
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def captions():
    """N captions of 2 to 77 tokens: shared beginnings, equal ones, in any order."""
    ids = st.lists(st.integers(4, 6), max_size=10)
    one = st.tuples(ids, st.integers(0, 75), st.integers(7, 9)).map(lambda t: (*t[0], *[t[2]] * t[1])[:75])
    return st.lists(one.map(lambda words: (START, *words, END)), min_size=1, max_size=60)


@settings(max_examples=25, deadline=None)
@given(rows=captions())
def test_texts_of_any_work(pair, rows):
    towers, captured, recorder = pair
    before = recorder.replays
    close(captured.texts(rows, 1), towers.texts(rows, 1))
    assert 1 <= recorder.replays - before <= 1 + sum(map(len, {*rows})) // 1000
    assert recorder.captures <= 11 + 8  # of texts: 128 to 2,048; of pictures: 4 to 112


@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 130), seed=st.integers(0, 9))
def test_pictures_of_any_number(pair, count, seed):
    towers, captured, recorder = pair
    pixels = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    before = recorder.replays
    close(captured.images(pixels, 1), towers.images(pixels, 1))
    assert recorder.replays - before == -(-count // 120)


def fresh(weights, attention=None, **more):
    recorder = Again()
    towers = Towers(weights, GpuProducts(torch.float32, attention), **more)
    return CapturedTowers(towers, recorder), recorder


@pytest.mark.parametrize("attention", ATTENTION.values(), ids=ATTENTION)
def test_what_was_there_before_does_not_matter(weights, attention):
    # In one bucket the shapes are the same, so every bit is.
    rows = [(START, *range(4, 4 + i), END) for i in range(8)]
    others = [(START, *range(20 - i, 40), END) for i in range(5)]
    pixels = torch.randn(3, 3, 32, 32)
    used, _ = fresh(weights, attention)
    used.texts(others, 1)
    used.images(torch.full((4, 3, 32, 32), float("nan")), 1)
    new, _ = fresh(weights, attention)
    assert torch.equal(used.texts(rows, 1), new.texts(rows, 1))
    assert torch.equal(used.images(pixels, 1), new.images(pixels, 1))
    # Nor does it matter which captions share the call: each has its rows of the tables.
    close(new.texts([*others, *rows], 1)[len(others) :], new.texts(rows, 1))


def test_rows_come_in_the_order_of_the_call(weights):
    captured, recorder = fresh(weights)
    rows, before = [(START, 9, END), (START, 5, END, 44), (START, 9, END), (START, 5, END)], recorder.replays
    found = captured.texts(rows, 1)
    assert found.shape == (4, 16)
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[3])  # cut after the end
    assert not torch.allclose(found[0], found[1])
    assert recorder.replays == before + 1


@pytest.mark.parametrize("attention", ATTENTION.values(), ids=ATTENTION)
def test_what_is_larger_is_cut(weights, attention):
    captured, recorder = fresh(weights, attention, rows_at_once=256)
    towers = Towers(weights, captured.products)
    rows = [(START, 4 + i % 9, *range(10, 30 + i % 17), END) for i in range(150)]
    before = recorder.replays
    close(captured.texts(rows, 1), towers.texts(rows, 1))
    assert recorder.captures <= 3  # 128 and 256; 4 pictures
    assert recorder.replays - before >= sum(map(len, set(rows))) // 256
    pixels = torch.randn(33, 3, 32, 32)  # 17 rows each: 15 of them at once
    before = recorder.replays
    close(captured.images(pixels, 1), towers.images(pixels, 1))
    assert recorder.replays - before == 3
    assert recorder.memory_taken <= 2 * (256 * 16 + 15 * 16 * 192)


def test_one_text_needs_room(weights):
    with pytest.raises(ValueError, match="rows_at_once must be a whole number of at least 77"):
        fresh(weights, rows_at_once=64)
    captured, _ = fresh(weights, rows_at_once=77)
    rows = [(START, *[5 + i] * 75, END) for i in range(3)]
    close(captured.texts(rows, 1), Towers(weights, captured.products).texts(rows, 1))


def test_results_are_copies(weights):
    captured, _ = fresh(weights)
    rows, pixels = [(START, 9, END)], torch.randn(2, 3, 32, 32)
    text, image = captured.texts(rows, 1), captured.images(pixels, 1)
    kept = text.clone(), image.clone()
    captured.texts([(START, 8, END)], 1)
    captured.images(torch.randn(2, 3, 32, 32), 1)
    assert torch.equal(text, kept[0])
    assert torch.equal(image, kept[1])


def test_memory_is_free_with_the_last_holder(weights):
    captured, _ = fresh(weights)
    captured.texts([(START, 9, END)], 1)
    held = [weakref.ref(part) for part in (captured._texts, captured._pictures, captured._towers)]
    gc.disable()
    try:
        del captured
        assert [part() for part in held] == [None] * 3
    finally:
        gc.enable()


def test_the_choice_on_a_gpu_is_captured(monkeypatch):
    model, recorder = clip(), Again()
    monkeypatch.setattr(choose, "CudaRecorder", lambda device: recorder)
    monkeypatch.setattr(choose, "read_weights", lambda model, device="cpu": read_weights(model))
    probe = [(START, 9, END), (START, END)]

    found = choose.gpu_forwards(model, SimpleNamespace(type="cuda"), "float32", own_forward, probe, 32)
    assert recorder.captures == 0  # what is only measured is not captured
    made = found.finish(found.exact)
    assert made.name == "float32, packed towers, padded attention, CUDA graphs"
    pixels = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(made.texts(probe, 1), found.exact.texts(probe, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(made.images(pixels, 1), found.exact.images(pixels, 1), atol=1e-5, rtol=0)
    assert (recorder.captures, recorder.replays) == (2, 6)  # both towers, twice tried, and once here


class Launches(TorchDispatchMode):
    """Counts operations that a GPU would be sent, so not views and allocations."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        allocates = function.overloadpacket.__name__ in ("empty", "empty_like", "new_empty", "_unsafe_view", "detach")
        self.count += not (allocates or function.is_view)
        return function(*args, **(kwargs or {}))


class Counting(Again):
    """Counts the operations of each run that is captured."""

    def __init__(self):
        super().__init__()
        self.launches = []

    def record(self, run):
        recorded = super().record(run)  # describes the pictures
        with Launches() as seen:
            run()
        self.launches.append(seen.count)
        return recorded


def test_operations_that_one_launch_replaces():
    # Twelve layers, as ViT-B has; attention as one call, in half precision.
    recorder = Counting()
    products = GpuProducts(torch.bfloat16, lambda q, k, v, part: q.clone())
    towers = Towers(read_weights(clip(layers=12)), products)
    CapturedTowers(towers, recorder)
    text, image = recorder.launches
    print(f"operations: text tower {text}, image tower {image}; now one graph each")
    page = " ".join((Path(__file__).parents[3] / "docs/gpu.md").read_text().split())
    said = re.search(r"(\d+) operations of the text tower and (\d+) of the image tower", page)
    assert [text, image] == [pytest.approx(int(number), rel=0.1) for number in said.groups()]
    assert (recorder.captures, recorder.replays) == (2, 4)


def asks_the_host(q, k, v, part, known={}):  # noqa: B006
    """Variable-length attention whose lengths are those of its first call, as a graph would keep them."""
    lengths = known.setdefault((len(q), part.longest_q), (part.starts_q.clone(), part.starts_k.clone()))
    return by_sequence(q, k, v, SimpleNamespace(starts_q=lengths[0], starts_k=lengths[1], causal=part.causal))


def asks_for_all(q, k, v, part):
    """Fails at sequences without queries: gives everyone the result of a softmax over nothing."""
    out = by_sequence(q, k, v, part)
    return out * float("nan") if int(part.starts_k.diff().min()) == 0 else out


@pytest.mark.parametrize("attention", [asks_the_host, asks_for_all])
def test_a_graph_that_errs_is_refused(weights, attention):
    with pytest.raises(RuntimeError, match=r"the CUDA graph of the text tower errs by .* its attention is 'odd'"):
        CapturedTowers(Towers(weights, GpuProducts(torch.float32, attention, "odd")), Again())


def test_what_is_not_finite_either_way_is_not_refused(weights):
    image = replace(weights.image, first=torch.full_like(weights.image.first, float("inf")))
    captured, _ = fresh(replace(weights, image=image))
    assert not captured.images(torch.zeros(1, 3, 32, 32), 1).isfinite().any()


@pytest.fixture(scope="module")
def there():
    """Weights of towers wide enough for every attention, on the GPU and on the CPU."""
    model = clip(width=128)
    return read_weights(model, "cuda"), read_weights(model)


def on_gpu(weights, dtype, **more):
    width = 128
    products = choose.choose_gpu_products(dtype, torch.device("cuda"), [(2, width // 2)])
    towers = Towers(weights, products, **more)
    return CapturedTowers(towers, CudaRecorder(towers.device)), towers


GPU_CASES = [(torch.float32, 2e-4), (torch.bfloat16, 0.1)]


def relative(found, expected):
    return float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())


@needs_gpu
@pytest.mark.parametrize(("dtype", "tolerance"), GPU_CASES)
def test_captured_is_uncaptured_on_a_gpu(there, dtype, tolerance):
    captured, towers = on_gpu(there[0], dtype, rows_at_once=1024)
    for count in (1, 7, 40, 128, 7, 1):
        rows = [(START, 4 + i % 9, *range(10, 14 + i % 29), END) for i in range(count)]
        pixels = torch.randn(count, 3, 32, 32, device="cuda")
        for _ in range(3):
            assert relative(captured.texts(rows, 1), towers.texts(rows, 1)) < tolerance
            assert relative(captured.images(pixels, 1), towers.images(pixels, 1)) < tolerance


@needs_gpu
def test_replays_are_equal_in_every_bit_on_a_gpu(there):
    captured, _ = on_gpu(there[0], torch.bfloat16)
    rows = [(START, 4 + i % 9, *range(10, 14 + i % 29), END) for i in range(60)]
    pixels = torch.randn(20, 3, 32, 32, device="cuda")
    first = captured.texts(rows, 1), captured.images(pixels, 1)
    for _ in range(5):
        captured.texts(rows[::-1][:40], 1)
        captured.images(-pixels, 1)
        assert torch.equal(captured.texts(rows, 1), first[0])
        assert torch.equal(captured.images(pixels, 1), first[1])


@needs_gpu
def test_streams_take_turns_on_a_gpu(there):
    captured, towers = on_gpu(there[0], torch.float32)
    works = [torch.randn(8, 3, 32, 32, device="cuda") for _ in range(3)]
    rows = [[(START, 4 + i, j, END) for j in range(20, 30)] for i in range(3)]
    expected = [(towers.texts(row, 1), towers.images(pixels, 1)) for row, pixels in zip(rows, works, strict=True)]
    streams = [torch.cuda.current_stream(), torch.cuda.Stream(), torch.cuda.Stream()]
    torch.cuda.synchronize()
    found = []
    for turn in range(30):
        with torch.cuda.stream(streams[turn % 3]):
            found.append((captured.texts(rows[turn % 3], 1), captured.images(works[turn % 3], 1)))
    torch.cuda.synchronize()
    for turn, pair in enumerate(found):
        assert all(relative(mine, theirs) < 2e-4 for mine, theirs in zip(pair, expected[turn % 3], strict=True))


@needs_gpu
def test_memory_of_all_sizes_is_bounded_on_a_gpu():
    weights = read_weights(clip(width=256), "cuda")

    def taken(counts):
        torch.cuda.synchronize()
        gc.collect()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved()
        captured, _ = on_gpu(weights, torch.float32, rows_at_once=8192)
        for count in counts:
            captured.images(torch.randn(count, 3, 32, 32, device="cuda"), 1)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved() - before

    largest = taken([448])
    assert taken([*range(4, 449, 4)]) <= 3 * largest


@needs_gpu
def test_a_call_is_one_launch_of_a_graph_on_a_gpu(there):
    from torch.profiler import ProfilerActivity, profile

    captured, _ = on_gpu(there[0], torch.bfloat16)
    rows, pixels = [(START, 4, 20, END)], torch.randn(4, 3, 32, 32, device="cuda")
    for _ in range(2):
        captured.texts(rows, 1)
        captured.images(pixels, 1)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        captured.texts(rows, 1)
        captured.images(pixels, 1)
        torch.cuda.synchronize()
    names = [event.name for event in seen.events()]
    if not any(name.startswith("cudaLaunch") for name in names):
        pytest.skip("the profiler sees no call of CUDA here")
    assert sum(name.startswith("cudaGraphLaunch") for name in names) == 2
    assert sum(name.startswith("cudaLaunchKernel") for name in names) <= 10


@needs_gpu
def test_the_second_gpu():
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    model = clip(width=128)
    products = GpuProducts(torch.float32)
    towers = Towers(read_weights(model, "cuda:1"), products)
    captured = CapturedTowers(towers, CudaRecorder(towers.device))
    rows, pixels = [(START, 4, 20, END)], torch.randn(2, 3, 32, 32, device="cuda:1")
    assert relative(captured.texts(rows, 1), towers.texts(rows, 1)) < 2e-4
    assert relative(captured.images(pixels, 1), towers.images(pixels, 1)) < 2e-4
    assert torch.cuda.current_device() == 0
