"""Steps of an encoder as on a GPU: the CPU's values bit for bit, one wait, and the text tower beside the pictures."""

import io

import numpy as np
import pytest
import torch

import dpad_fast as df
from dpad_fast.clip import images as module
from dpad_fast.clip.cache import EmbeddingCache
from dpad_fast.clip.requests import read_images
from dpad_fast.testing import rewards as shared
from dpad_fast.testing.gpu import pretend_gpu, there

SIZE = shared.SIZE


def encoded(picture, kind="PNG"):
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def pictures(folder):
    """One picture in each form that a trainer hands in, all different."""
    made = [shared.picture(i) for i in range(8)]
    made[1].save(folder / "one.jpg")
    array = np.asarray(made[2])
    return [
        made[0],
        str(folder / "one.jpg"),
        array,
        torch.from_numpy(np.asarray(made[3]).transpose(2, 0, 1).copy()),
        encoded(made[4]),
        made[5].convert("L"),
        made[6].convert("RGBA"),
        {"bytes": encoded(made[7], "JPEG"), "path": None},
    ]


def batch(images, count):
    captions = [f"{shared.WORDS[i % len(shared.WORDS)]} near the table {i}" for i in range(count)]
    captions[0] = " ".join([captions[0]] * 20)  # longer than the context
    texts = [shared.completion(caption=caption) for caption in captions]
    return texts, [df.Target.parse(shared.SOLUTION)] * count, [images[i % len(images)] for i in range(count)]


def scorer_of(tiny, precision="float32", **options):
    encoder = df.ClipEncoder.from_transformers(*tiny, precision=precision, threads=2)
    return df.RewardScorer(df.RewardConfig.preset("dpad", **({"shape": "margin"} | options)), encoder)


def same(one, other):
    for found, expected in (
        (one.total, other.total),
        *((one.similarity[k], other.similarity[k]) for k in one.similarity),
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    "options",
    [{"long_caption": "truncate"}, {"contrast": "blanked"}, {"region": "predicted"}, {"long_caption": "chunk"}],
)
def test_a_step_gives_the_cpus_values_and_waits_once(tiny, tmp_path, options):
    images = pictures(tmp_path)
    plain, pretended = scorer_of(tiny, **options), scorer_of(tiny, **options)
    gpu = pretend_gpu(pretended.encoder)
    for count in (11, 5, 13):  # known captions and pictures come out of the cache
        same(pretended.score(*batch(images, count)), plain.score(*batch(images, count)))
        assert gpu.waits == 1
        gpu.waits = 0
    assert set(plain.encoder.cache._entries) == set(pretended.encoder.cache._entries)
    cache = pretended.encoder.cache
    assert all(type(value) is torch.Tensor for value in cache.get_rows(list(cache._entries)))


def test_captions_are_embedded_while_pictures_are_prepared(tiny, tmp_path, monkeypatch):
    scorer = scorer_of(tiny)
    gpu = pretend_gpu(scorer.encoder)
    for name in ("key", "pixels"):
        found = getattr(module.Picture, name)

        def noted(self, name=name, found=found):
            gpu.log.append((name,))
            return found.fget(self) if name == "key" else found(self)

        monkeypatch.setattr(module.Picture, name, property(noted) if name == "key" else noted)
    images = [encoded(shared.picture(i)) for i in range(4)]
    scorer.score(*batch(images, 8))
    order = list(dict.fromkeys(entry[0] for entry in gpu.log))
    assert order == ["texts", "key", "pixels", "pinned", "copy", "after", "lend", "images", "to_host"]
    assert [entry for entry in gpu.log if entry[0] == "copy"] == [("copy", "copies", 4 * 3 * SIZE[0] * SIZE[1])]
    assert ("after", "model", "copies") in gpu.log
    assert sum(entry[0] == "pixels" for entry in gpu.log) == 4  # each is decoded once, for two regions
    assert gpu.log[-1][0] == "to_host"


def test_only_the_crop_goes_up_where_the_whole_picture_is_known(tiny):
    plain, pretended = (df.ClipEncoder.from_transformers(*tiny, threads=2) for _ in range(2))
    gpu = pretend_gpu(pretended)
    images = [shared.picture(i) for i in range(3)]
    assert torch.equal(pretended.embed_images(images), plain.embed_images(images))
    gpu.log.clear()
    boxes = [(5, 6, 30, 40), (-7, -3, 20, 9), (60, 50, 200, 300)]
    assert torch.equal(pretended.embed_images(images, boxes), plain.embed_images(images, boxes))
    inside = 25 * 34 + 20 * 9 + (SIZE[0] - 60) * (SIZE[1] - 50)
    assert [entry[2] for entry in gpu.log if entry[0] == "copy"] == [3 * inside]
    gpu.log.clear()
    both = [(10, 10, 20, 20), (40, 5, 50, 18)]
    assert torch.equal(pretended.embed_images([images[0]] * 2, both), plain.embed_images([images[0]] * 2, both))
    assert [entry[2] for entry in gpu.log if entry[0] == "copy"] == [3 * 40 * 15]  # the rectangle around both
    gpu.log.clear()
    pretended.embed_images(images, boxes)
    assert [entry[0] for entry in gpu.log] == ["rows", "to_host"]


def test_public_embeddings_are_the_cpus(tiny):
    plain, pretended = (df.ClipEncoder.from_transformers(*tiny) for _ in range(2))
    gpu = pretend_gpu(pretended)
    texts = ["a cat", "a dog left of it", "a cat", "two"]
    for _ in range(2):
        assert torch.equal(pretended.embed_texts(texts), plain.embed_texts(texts))
    assert gpu.waits == 2
    assert pretended.embed_texts([]).shape == plain.embed_texts([]).shape


@pytest.fixture
def coarse(tiny):
    """A guarded encoder whose first look is the float32 model with an error, and the same on a GPU."""

    def made():
        encoder = df.ClipEncoder.from_transformers(*tiny, precision="guarded", threads=2)
        exact = encoder._forwards[True]
        texts, images = exact.texts, exact.images

        class Coarse:
            name = precision = "coarse"

            def texts(self, rows, threads):
                return texts(rows, threads) + 0.02

            def images(self, pixels, threads):
                return images(pixels, threads) - 0.02

        encoder._forwards = {True: exact, False: Coarse()}
        encoder.margin, encoder.image_margin = 0.02, 0.02
        return df.RewardScorer(df.RewardConfig.preset("dpad", shape="margin"), encoder)

    return made


def test_a_second_look_waits_for_captions_and_then_for_pictures_and_decodes_nothing_again(
    tiny, tmp_path, coarse, monkeypatch
):
    images = pictures(tmp_path)
    exact, pretended = scorer_of(tiny), coarse()
    gpu = pretend_gpu(pretended.encoder)
    decoded, read = [], module.as_pixels
    monkeypatch.setattr(module, "as_pixels", lambda image, name: decoded.append(name) or read(image, name))
    expected = exact.score(*batch(images, 24))
    once, decoded[:] = sorted(decoded), []
    found = pretended.score(*batch(images, 24))
    assert gpu.waits == 3
    assert sorted(decoded) == once
    assert len(once) >= 5
    assert 0 < pretended.recomputed <= 24
    again = (found.similarity["roi"] - expected.similarity["roi"]).abs() < 1e-5
    assert int(again.sum()) >= pretended.recomputed
    decisions = [scores.similarity["roi"] > scores.similarity["aoi"] for scores in (found, expected)]
    assert torch.equal(*decisions)
    # Where exact captions leave nothing near, no picture is looked at again.
    pretended.encoder.image_margin = 0.0
    pretended.encoder.cache.clear()
    gpu.waits = 0
    pretended.score(*batch(images, 24))
    assert gpu.waits == 2
    # Where nothing is near there is no second look.
    pretended.encoder.margin = 0.0
    gpu.waits = 0
    pretended.score(*batch(images, 24))
    assert gpu.waits == 1


@pytest.mark.parametrize("known", [False, True])
def test_a_second_look_at_captions_takes_the_regions_that_are_on_the_gpu(tiny, tmp_path, coarse, monkeypatch, known):
    images, scorer, plain = pictures(tmp_path), coarse(), coarse()
    gpu = pretend_gpu(scorer.encoder)
    for one in (scorer, plain):
        one.encoder.image_margin = 0.0
        if known:
            one.score(*batch(images, 24))
            for key in [key for key in one.encoder.cache._entries if key[0] == "text"]:
                del one.encoder.cache._entries[key]
    gpu.log.clear()
    gpu.waits = 0
    asked, find = [], df.ClipEncoder.known_regions
    monkeypatch.setattr(df.ClipEncoder, "known_regions", lambda *args: asked.append(args) or find(*args))
    found = scorer.score(*batch(images, 24))
    assert gpu.waits == 2  # a first look and a second one
    assert len(asked) == 1
    assert [entry[0] for entry in gpu.log].count("rows") == int(known)
    same(found, plain.score(*batch(images, 24)))


def test_other_regions_than_the_last_ones_are_looked_up(tiny):
    encoder = df.ClipEncoder.from_transformers(*tiny)
    plain = df.ClipEncoder.from_transformers(*tiny)
    pretend_gpu(encoder)
    sources, others = (read_images([shared.picture(i) for i in some], None)[0] for some in ((0, 1), (2, 3)))
    step = encoder.step()
    calls = [
        (sources, [(0, None), (1, None), (0, (1, 2, 30, 40))]),
        (sources, [(0, (1, 2, 30, 40)), (1, None), (1, None)]),
        (sources, [(1, (0, 0, 9, 9)), (0, None)]),
        (others, [(0, None), (1, (0, 0, 9, 9))]),
    ]
    for given, regions in calls:
        expected = plain.embed_regions(given, regions, exact=True)
        assert torch.equal(step.finish(step.regions(given, regions, exact=True))[0], expected)


def test_inputs_beyond_the_bound_are_made_again(tiny, tmp_path, coarse, monkeypatch):
    images, one, other = pictures(tmp_path), coarse(), coarse()
    counts, scores = [], []
    for scorer, bound in ((one, 1 << 20), (other, 0)):
        monkeypatch.setattr("dpad_fast.clip.step._KEPT_BYTES", bound)
        gpu = pretend_gpu(scorer.encoder)
        scores.append(scorer.score(*batch(images, 24)))
        assert gpu.waits == 3
        counts.append(sum(entry[0] == "copy" for entry in gpu.log))
    same(*scores)
    assert counts == [1, 2]


def test_embeddings_that_are_not_finite_are_refused_and_not_kept(tiny):
    encoder = df.ClipEncoder.from_transformers(*tiny)
    encoder._forwards[True].texts = lambda rows, threads: torch.full((len(rows), 16), torch.nan)
    pretend_gpu(encoder)
    with pytest.raises(ValueError, match="returned embeddings that are not finite"):
        encoder.embed_texts(["a cat"])
    assert len(encoder.cache) == 0


def test_a_broken_picture_is_its_rows_error(tiny):
    broken = encoded(shared.picture(1))[:-400]
    images = [shared.picture(0), broken, shared.picture(2)]
    plain, pretended = scorer_of(tiny), scorer_of(tiny)
    pretend_gpu(pretended.encoder)
    scores = [scorer.score(*batch(images, 3), on_error="row") for scorer in (plain, pretended)]
    assert scores[0].errors == scores[1].errors
    assert scores[1].errors[1] is not None
    assert torch.equal(scores[0].total.nan_to_num(9), scores[1].total.nan_to_num(9))


def test_many_bytes_go_up_in_several_copies(tiny, monkeypatch):
    monkeypatch.setattr("dpad_fast.clip.gpu_way._BYTES", 2 * 3 * SIZE[0] * SIZE[1])
    plain, pretended = (df.ClipEncoder.from_transformers(*tiny, threads=2) for _ in range(2))
    gpu = pretend_gpu(pretended)
    images = [shared.picture(i) for i in range(5)]
    assert torch.equal(pretended.embed_images(images), plain.embed_images(images))
    picture = 3 * SIZE[0] * SIZE[1]
    assert [entry[2] for entry in gpu.log if entry[0] == "copy"] == [2 * picture, 2 * picture, picture]


def test_without_a_cache(tiny, tmp_path):
    images = pictures(tmp_path)
    plain, pretended = scorer_of(tiny), scorer_of(tiny)
    pretended.encoder.cache = EmbeddingCache(0)
    gpu = pretend_gpu(pretended.encoder)
    for _ in range(2):
        same(pretended.score(*batch(images, 9)), plain.score(*batch(images, 9)))
    assert gpu.waits == 2


def test_the_file_of_embeddings_serves_a_gpu(tiny, tmp_path):
    images = pictures(tmp_path)
    first, second = (scorer_of(tiny) for _ in range(2))
    for scorer in (first, second):
        scorer.encoder.cache = EmbeddingCache(folder=tmp_path / "kept")
    pretend_gpu(first.encoder)
    expected = first.score(*batch(images, 9))
    gpu = pretend_gpu(second.encoder)
    same(second.score(*batch(images, 9)), expected)
    assert not any(entry[0] in ("images", "copy") for entry in gpu.log)


@pytest.mark.parametrize("read", [bool, float, torch.Tensor.cpu, torch.Tensor.tolist, torch.Tensor.item])
def test_what_passes_for_a_gpu_refuses_to_be_read(read):
    with pytest.raises(AssertionError, match="waits for the GPU"):
        read(there(torch.ones(1)) * 2)
    with pytest.raises(AssertionError, match="mixes tensors"):
        there(torch.ones(3))[torch.tensor([0, 1])]


@pytest.mark.parametrize("on_gpu", [False, True])
def test_what_a_row_gets_does_not_depend_on_what_was_scored_before(tiny, tmp_path, coarse, on_gpu):
    """A region that is looked at again for one completion is no other one for the completions after it."""
    images, scorer = pictures(tmp_path), coarse()
    if on_gpu:
        pretend_gpu(scorer.encoder)
    texts, targets, shown = batch(images, 24)
    first = scorer.score(texts, targets, shown)
    assert scorer.recomputed > 0
    counted, looked = scorer.recomputed, scorer.encoder.cache.misses
    same(scorer.score(texts, targets, shown), first)
    assert scorer.recomputed == 2 * counted
    assert scorer.encoder.cache.misses - looked < looked  # known: regions of both looks
    other = coarse()
    if on_gpu:
        pretend_gpu(other.encoder)
    parts = [other.score(texts[i : i + 5], targets[i : i + 5], shown[i : i + 5]) for i in (20, 5, 0, 15, 10)]
    parts = [parts[i] for i in (2, 1, 4, 3, 0)]
    for name in ("roi", "aoi"):
        found = torch.cat([part.similarity[name] for part in parts])
        torch.testing.assert_close(found, first.similarity[name], rtol=0, atol=0, equal_nan=True)
