"""The first look of a guarded encoder on a GPU: the least error that pays, never one that overflows, float32 else."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

import dpad_fast as df
from dpad_fast.clip import encoder as encoders
from dpad_fast.clip.first_look import Reserved, best_look, choose_first_look, expected_cost
from dpad_fast.clip.margins import Look
from dpad_fast.clip.tower import choose, gpu_attention
from dpad_fast.clip.tower.choose import Candidate, Forwards
from dpad_fast.testing import rewards as shared

NAN = float("nan")


def look(precision: str, margin: float, near: float) -> Look:
    return Look(precision, margin, margin / 2, near)


def taken(*looks: Look, precision: str = "guarded") -> str:
    best = best_look(looks, precision)
    return "float32" if best is None else looks[best].precision


def test_the_least_error_of_a_speed_wins() -> None:
    half, brain = look("float16", 1e-4, 0.01), look("bfloat16", 8e-4, 0.08)
    assert taken(half, brain) == taken(brain, half) == "float16"
    assert taken(half, brain, look("tf32", 9e-5, 0.009)) == "float16"  # half as fast for as much
    # A model that bfloat16 serves better: the measurement decides, not the name.
    assert taken(look("float16", 2e-3, 0.1), look("bfloat16", 1e-3, 0.05)) == "bfloat16"
    # Nothing is near in either: the smaller margin.
    assert taken(look("bfloat16", 8e-4, 0.0), look("float16", 1e-4, 0.0)) == "float16"


def test_what_is_not_finite_is_not_taken() -> None:
    overflown = Look("float16", NAN, NAN, 1.0)
    assert not overflown.sound
    assert not Look("float16", 1e-4, NAN, 0.1).sound
    assert taken(overflown, look("bfloat16", 8e-4, 0.1), look("tf32", 1e-4, 0.012)) == "tf32"
    assert taken(overflown, look("bfloat16", 8e-4, 0.001), look("tf32", 1e-4, 0.0001)) == "bfloat16"
    assert taken(overflown, Look("bfloat16", float("inf"), 0.1, 1.0)) == "float32"
    assert taken(overflown, look("bfloat16", 8e-4, 1.0), precision="bfloat16") == "bfloat16"
    assert taken() == "float32"


def test_a_first_look_must_pay() -> None:
    """One that repeats more than it saves is none: float32 alone is faster."""
    assert expected_cost(look("float16", 1e-4, 0.0)) == 0.25
    assert expected_cost(look("float16", 1e-4, 1.0)) == 1.25
    costs = [expected_cost(look("bfloat16", 1e-3, share)) for share in (0.0, 0.01, 0.05, 0.1, 0.2, 0.5)]
    assert costs == sorted(costs)
    assert taken(look("bfloat16", 1e-3, 0.15)) == "bfloat16"
    assert taken(look("bfloat16", 1e-3, 0.17)) == "float32"
    assert taken(look("tf32", 1e-3, 0.10)) == "tf32"
    assert taken(look("tf32", 1e-3, 0.13)) == "float32"
    # Without a second look nothing is repeated, so the share does not matter.
    assert taken(look("float16", 1e-3, 0.9), look("bfloat16", 8e-3, 1.0), precision="bfloat16") == "float16"


class Made:
    """A forward by name."""

    def __init__(self, precision: str, bad: tuple[int, ...] = ()) -> None:
        self.precision, self.name, self.bad, self.calls = precision, precision, bad, []

    def texts(self, rows, threads):
        self.calls.append(list(rows))
        with torch.inference_mode():
            return self._spoiled(torch.tensor([[float(row[0]), 1.0] for row in rows]))

    def images(self, pixels, threads):
        self.calls.append(pixels.tolist())
        with torch.inference_mode():
            return self._spoiled(pixels.clone())

    def _spoiled(self, values):
        for row in self.bad:
            values[row, 0] = NAN
        return values


class Table:
    """A calibration whose looks were written down."""

    def __init__(self, *looks: Look) -> None:
        self.looks = {each.precision: each for each in looks}

    def look(self, reduced) -> Look:
        return self.looks[reduced.precision]


def chosen(precision: str, *looks: Look, missing: tuple[str, ...] = ()):
    def make(kind: str):
        return lambda: None if kind in missing else Made(kind)

    finished = []

    def finish(forward):
        finished.append(forward.precision)
        return forward

    candidates = tuple(Candidate(kind, make(kind), make(kind)) for kind in (each.precision for each in looks))
    forwards = Forwards(Made("float32"), None, candidates, finish)
    return choose_first_look(forwards, precision, lambda exact: Table(*looks)), finished


def test_the_candidates_are_measured_and_one_is_used() -> None:
    looks = look("float16", 1e-4, 0.01), look("bfloat16", 8e-4, 0.08), look("tf32", 9e-5, 0.01)
    found, finished = chosen("guarded", *looks)
    assert {exact: made.precision for exact, made in found.forwards.items()} == {True: "float32", False: "float16"}
    assert finished == ["float32", "float16"]
    assert [each.used for each in found.looks] == [True, False, False]
    assert found.used.margin == 1e-4
    assert [str(each) for each in found.looks] == [
        "float16: margin 1.0e-04, 1.0% of comparisons near, used",
        "bfloat16: margin 8.0e-04, 8.0% of comparisons near",
        "tf32: margin 9.0e-05, 1.0% of comparisons near",
    ]


def test_a_candidate_that_computes_something_else_is_none() -> None:
    looks = look("float16", 1e-9, 0.0), look("bfloat16", 8e-4, 0.01)
    found, _ = chosen("guarded", *looks, missing=("float16",))
    assert found.forwards[False].precision == "bfloat16"
    assert str(found.looks[0]) == "float16: not finite or not the model's"


def test_where_none_pays_the_first_look_is_float32() -> None:
    found, finished = chosen("guarded", look("float16", 1e-2, 0.5), look("bfloat16", 8e-2, 1.0))
    assert found.forwards[True] is found.forwards[False]
    assert (found.used.margin, found.used.image_margin) == (0.0, 0.0)
    assert finished == ["float32"]
    assert not any(each.used for each in found.looks)


def test_bfloat16_is_the_least_error_at_that_speed() -> None:
    found, finished = chosen("bfloat16", look("float16", 1e-4, 0.5), look("bfloat16", 8e-4, 1.0))
    assert set(found.forwards) == {False}
    assert isinstance(found.forwards[False], Reserved)
    assert found.forwards[False].precision == "float16 or bfloat16"
    assert finished == ["float16"]
    found, _ = chosen("bfloat16", Look("float16", NAN, NAN, 1.0), look("bfloat16", 8e-4, 1.0))
    assert isinstance(found.forwards[False], Made)
    assert found.forwards[False].precision == "bfloat16"
    with pytest.raises(ValueError, match="no precision of this GPU gives finite embeddings"):
        chosen("bfloat16", Look("float16", NAN, NAN, 1.0), Look("bfloat16", NAN, NAN, 1.0))


def test_rows_that_overflow_come_from_the_reserve() -> None:
    made = []

    def make():
        made.append(Made("bfloat16"))
        return made[-1]

    first = Made("float16")
    forward = Reserved(first, make)
    rows = [(3,), (4,), (5,)]
    assert forward.texts(rows, 1)[:, 0].tolist() == [3.0, 4.0, 5.0]
    assert made == []  # nothing is made that is not needed
    assert forward.precision not in ("float16", "bfloat16")  # no encoder with either may read its rows from a cache
    first.bad = (0, 2)
    assert forward.texts(rows, 1)[:, 0].tolist() == [3.0, 4.0, 5.0]
    pixels = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert forward.images(pixels, 1).tolist() == pixels.tolist()
    assert [each.calls for each in made] == [[[(3,), (5,)], [[1.0, 2.0], [5.0, 6.0]]]]


@pytest.fixture
def as_on_gpu(monkeypatch):
    monkeypatch.setattr(gpu_attention, "installed", lambda: iter(()))
    monkeypatch.setattr(encoders, "make_forwards", choose.gpu_forwards)


@pytest.fixture(scope="module")
def loud():
    """The tiny CLIP with one hidden unit far beyond float16's range, whose weight downwards takes that back."""
    model, processor = shared.tiny_clip()
    model = copy.deepcopy(model)
    with torch.no_grad():
        for tower in (model.text_model, model.vision_model):
            mlp = tower.encoder.layers[0].mlp
            mlp.fc1.weight[:4] *= 1e6
            mlp.fc1.bias[:4] *= 1e6
            mlp.fc2.weight[:, :4] *= 1e-6
    return model, processor


def test_a_model_that_overflows_in_float16_is_not_looked_at_in_it(loud, as_on_gpu) -> None:
    guarded = df.ClipEncoder.from_transformers(*loud, precision="guarded")
    half, brain, *_ = guarded.first_looks
    assert (half.precision, half.sound, half.used) == ("float16", False, False)
    assert (brain.precision, brain.sound) == ("bfloat16", True)
    assert "float16," not in guarded.forward["reduced"].replace("bfloat16", "")
    reduced = df.ClipEncoder.from_transformers(*loud, precision="bfloat16")
    assert reduced.forward == {"reduced": "bfloat16, packed towers, padded attention"}
    assert torch.isfinite(reduced.embed_texts(["a red cat"])).all()


def test_the_measured_margins_are_those_in_use(tiny, as_on_gpu) -> None:
    guarded = df.ClipEncoder.from_transformers(*tiny, precision="guarded")
    half, brain = guarded.first_looks[:2]
    assert half.used
    assert (guarded.margin, guarded.image_margin) == (half.margin, half.image_margin)
    assert half.image_margin > 0
    assert 3 < brain.margin / half.margin < 20  # float16 has three more bits
    assert half.near <= brain.near
    assert df.ClipEncoder.from_transformers(*tiny, precision="float32").first_looks == ()
    assert df.ClipEncoder.from_transformers(*tiny, precision="bfloat16").margin == 0.0


class Overflows:
    """A first look in which every second caption and every third region is not finite."""

    precision = name = "float16"

    def __init__(self, exact) -> None:
        self.exact = exact

    def texts(self, rows, threads):
        with torch.inference_mode():
            found = self.exact.texts(rows, threads).clone()
            found[::2] = float("inf")
            return found

    def images(self, pixels, threads):
        with torch.inference_mode():
            found = self.exact.images(pixels, threads).clone()
            found[::3, 1] = NAN
            return found


@pytest.mark.parametrize("shape", ["binary", "roi-threshold", "margin", "released"])
def test_what_overflows_on_real_data_is_decided_by_float32(tiny, shape) -> None:
    guarded, exact = (df.ClipEncoder.from_transformers(*tiny, precision=name) for name in ("guarded", "float32"))
    guarded._forwards = {True: guarded._forwards[True], False: Overflows(guarded._forwards[True])}
    guarded.margin = guarded.image_margin = 1e-6
    texts = [shared.completion(caption=" ".join(shared.WORDS[i : i + 3])) for i in range(9)]
    pictures = [shared.picture(i % 4) for i in range(9)]
    targets = [df.Target.parse(shared.SOLUTION)] * 9
    config = df.RewardConfig.preset("dpad", shape=shape, tau=0.2)
    scorers = [df.RewardScorer(config, each) for each in (guarded, exact)]
    found, expected = (scorer.score(texts, targets, pictures) for scorer in scorers)
    torch.testing.assert_close(found.terms["discriminative"], expected.terms["discriminative"], atol=1e-5, rtol=0)
    for side in ("roi", "aoi"):
        torch.testing.assert_close(found.similarity[side], expected.similarity[side], atol=1e-5, rtol=0)
    assert 0 < scorers[0].recomputed <= 9
    assert torch.isfinite(guarded.embed_texts(["a red cat", "a dog"])).all()


def test_weights_that_are_not_finite_are_still_an_error(tiny, as_on_gpu) -> None:
    model = copy.deepcopy(tiny[0])
    with torch.no_grad():
        model.text_projection.weight[0, 0] = NAN
    for precision in ("guarded", "bfloat16"):
        with pytest.raises(ValueError, match="not finite"):
            df.ClipEncoder.from_transformers(model, tiny[1], precision=precision)


def test_a_first_look_on_the_cpu_that_is_not_finite_is_float32(tiny, monkeypatch) -> None:
    make = encoders.make_forwards
    monkeypatch.setattr(
        encoders, "make_forwards", lambda *args: (made := make(*args)) and replace(made, reduced=Overflows(made.exact))
    )
    guarded = df.ClipEncoder.from_transformers(*tiny, precision="guarded")
    assert guarded._forwards[False] is guarded._forwards[True]
    assert (guarded.margin, guarded.first_looks[0].sound) == (0.0, False)


def test_where_the_first_look_is_float32_it_must_be_finite(tiny, monkeypatch) -> None:
    """A guard would find what it kept as float32's, and not look again."""
    make = encoders.make_forwards
    monkeypatch.setattr(encoders, "make_forwards", lambda *args: (made := make(*args)) and replace(made, reduced=None))
    exact = df.ClipEncoder.from_transformers(*tiny, precision="guarded")
    exact._forwards = dict.fromkeys((True, False), exact._forwards[True])
    assert not exact.guards(False)
    exact._forwards = dict.fromkeys((True, False), Overflows(exact._forwards[True]))
    exact._forwards[True].precision = "float32"
    with pytest.raises(ValueError, match="not finite"):
        exact.embed_ids([(5, 1), (6, 1)])
    assert len(exact.cache) == 0


def test_what_is_not_finite_is_in_no_cache(tiny, encoder) -> None:
    """Another encoder of the model may share it, and one without a guard would return what it finds."""
    guarded = df.ClipEncoder.from_transformers(*tiny, precision="guarded")
    guarded._forwards = {True: guarded._forwards[True], False: Overflows(guarded._forwards[True])}
    ids = [(5, 1), (6, 1), (7, 1)]
    found = guarded.embed_ids(ids)
    assert torch.isfinite(found).all(dim=1).tolist() == [False, True, False]
    assert list(guarded.known_texts(ids, exact=False)) == [ids[1]]
    places = [(("picture", i), None) for i in range(3)]
    guarded.keep_regions(places, found, exact=False)
    assert len(guarded.cache) == 2
