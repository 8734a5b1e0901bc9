"""Embeddings are those of the model that the caller holds, however captions and pictures are batched."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch

import dpad_fast as df
from dpad_fast.clip import Preprocess
from dpad_fast.clip.images import Picture
from dpad_fast.testing import rewards as shared


def captions(count, seed=0):
    rng = random.Random(seed)
    return [" ".join(rng.choice(shared.WORDS) for _ in range(rng.choice((1, 3, 8, 15)))) for _ in range(count)]


def unit(output):
    return torch.nn.functional.normalize(getattr(output, "pooler_output", output).float(), dim=-1)


def one_by_one(model, processor, texts, pictures):
    with torch.no_grad():
        text = [unit(model.get_text_features(**_inputs(processor, text))) for text in texts]
        image = [unit(model.get_image_features(**processor.image_processor(p, return_tensors="pt"))) for p in pictures]
    return torch.cat(text), torch.cat(image)


def _inputs(processor, text):
    return processor.tokenizer(text, return_tensors="pt")


def embed(encoder, texts, pictures):
    ids = encoder.tokens.encode(texts)
    regions = [(i, None) for i in range(len(pictures))]
    return encoder.embed_ids(ids), encoder.embed_regions([Picture(p, "p") for p in pictures], regions)


def test_batches_agree_with_one_at_a_time(tiny):
    texts, pictures = captions(300), [shared.picture(i, (50 + 7 * i, 90 - 3 * i)) for i in range(9)]
    found = embed(df.ClipEncoder.from_transformers(*tiny), texts, pictures)
    for mine, theirs in zip(found, one_by_one(*tiny, texts, pictures), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)


def test_length_buckets_of_a_model_that_runs_as_it_is(tiny):
    import copy

    model = copy.deepcopy(tiny[0])
    model.text_model.register_forward_hook(lambda *_: None)  # so it is not a stock model any more
    encoder = df.ClipEncoder.from_transformers(model, tiny[1])
    assert encoder.forward == {"float32": "float32, the model's own forward"}
    widths = []
    run = encoder._forwards[True]._text
    encoder._forwards[True]._text = lambda module, ids, lengths: widths.append(ids.shape) or run(module, ids, lengths)
    texts = captions(300)
    found, _ = embed(encoder, texts, [shared.picture()])
    torch.testing.assert_close(found, _texts(tiny, texts), atol=1e-6, rtol=0)
    assert len(widths) > 1
    padded = sum(rows * width for rows, width in widths)
    distinct = dict.fromkeys(encoder.tokens.encode(texts))
    assert padded < 1.2 * sum(map(len, distinct))
    guarded = df.ClipEncoder.from_transformers(model, tiny[1], precision="guarded")
    assert set(guarded.forward) == {"float32", "reduced"}


def test_end_token_inside_a_caption(tiny):
    texts = ["a red <|endoftext|> cat", "<|startoftext|> a cat", "a red cat near the table"]
    found, _ = embed(df.ClipEncoder.from_transformers(*tiny), texts, [shared.picture()])
    torch.testing.assert_close(found, _texts(tiny, texts), atol=1e-6, rtol=0)


def _texts(tiny, texts):
    model, processor = tiny
    with torch.no_grad():
        return torch.cat([unit(model.get_text_features(**_inputs(processor, text))) for text in texts])


@pytest.fixture(scope="module")
def siglip():
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokenizer = shared.tiny_tokenizer()
    config = SiglipConfig(
        text_config={**tower, "vocab_size": len(tokenizer), "max_position_embeddings": 24, "projection_size": 32},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
    )
    torch.manual_seed(0)
    model = SiglipModel(config).eval()
    from types import SimpleNamespace

    return model, SimpleNamespace(
        tokenizer=tokenizer, image_processor=SiglipImageProcessor(size={"height": 32, "width": 32})
    )


def test_siglip_attends_to_full_length(siglip):
    model, processor = siglip
    encoder = df.ClipEncoder.from_transformers(*siglip)
    assert encoder.preprocess.resize == "squash"
    texts = ["a", "a cat", "a b c d e f"]
    found = encoder.embed_ids(encoder.tokens.encode(texts))
    rows = [
        processor.tokenizer(t, padding="max_length", max_length=24, return_tensors="pt")["input_ids"] for t in texts
    ]
    with torch.no_grad():
        expected = torch.cat([unit(model.get_text_features(input_ids=ids)) for ids in rows])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_other_families_get_an_attention_mask():
    from types import SimpleNamespace

    tokenizer = shared.tiny_tokenizer()
    seen = []

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(len(tokenizer), 4))
            self.config = SimpleNamespace(model_type="altclip", text_config=SimpleNamespace(max_position_embeddings=16))

        def get_text_features(self, input_ids, attention_mask):
            seen.append(attention_mask)
            return (self.weight[input_ids] * attention_mask[..., None]).sum(1)

        def get_image_features(self, pixel_values):
            return pixel_values.flatten(1)[:, :4]

    processor = SimpleNamespace(tokenizer=tokenizer, image_processor=shared.tiny_clip()[1].image_processor)
    encoder = df.ClipEncoder.from_transformers(Model(), processor)
    encoder.embed_ids(encoder.tokens.encode(["a", "a b c"]))
    assert seen[0].sum(1).tolist() == [3, 5]


@pytest.fixture(scope="module")
def open_clip_parts():
    open_clip = pytest.importorskip("open_clip")
    from open_clip.transform import image_transform

    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
        text_cfg={"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    ).eval()
    return model, image_transform(32, is_train=False), open_clip.tokenizer.SimpleTokenizer()


def test_open_clip_agrees_with_one_at_a_time(open_clip_parts):
    model, transform, tokenizer = open_clip_parts
    texts, pictures = captions(40), [shared.picture(i, (51 + 7 * i, 90 - 3 * i)) for i in range(5)]
    encoder = df.ClipEncoder.from_open_clip(*open_clip_parts)
    assert encoder.preprocess.center == "round"
    found = embed(encoder, texts, pictures)
    with torch.no_grad():
        text = torch.cat([unit(model.encode_text(tokenizer(text))) for text in texts])
        image = torch.cat([unit(model.encode_image(transform(picture)[None])) for picture in pictures])
    torch.testing.assert_close(found[0], text, atol=1e-6, rtol=0)
    torch.testing.assert_close(found[1], image, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a cat",
        "It's  the CAT's\n39 lives!!",
        "<end_of_text> x",
        "&amp;lt; caf\u00e9 \u4f60\u597d \U0001f98a",
        "x" * 300,
        "low lower lowest",
    ],
)
def test_open_clip_tokens_are_its_own(open_clip_parts, text):
    tokenizer = open_clip_parts[2]
    encoder = df.ClipEncoder.from_open_clip(*open_clip_parts)
    expected = (tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id)
    assert encoder.tokens.encode([text]) == [expected]
    assert encoder.tokens.encode([text]) == [expected]  # open_clip's own cache is filled by now


def test_open_clip_in_a_scorer(open_clip_parts):
    encoder = df.ClipEncoder.from_open_clip(*open_clip_parts)
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad", shape="margin"), encoder)
    batch = scorer.score([shared.completion()], [df.Target.parse(shared.SOLUTION)], [shared.picture()])
    assert torch.isfinite(batch.similarity["roi"]).all()
    region, whole = (batch.similarity[name].item() for name in ("roi", "aoi"))
    assert batch.reasons == (None if region > whole else "not-discriminative",)  # random weights decide which


def test_reading_processors():
    from transformers import CLIPImageProcessorPil, SiglipImageProcessor

    clip = Preprocess.from_transformers(CLIPImageProcessorPil())
    assert (clip.size, clip.resize, clip.interpolation, clip.center) == (224, "shortest", "bicubic", "floor")
    siglip = Preprocess.from_transformers(SiglipImageProcessor(resample=2))
    assert (siglip.size, siglip.resize, siglip.interpolation, siglip.mean) == (224, "squash", "bilinear", (0.5,) * 3)
    for settings, message in [
        ({"do_rescale": False}, "do_rescale=False"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor"),
        ({"resample": 0}, "resamples by"),
        ({"size": {"shortest_edge": 256}}, "resizes to .*256.* and crops to"),
        ({"do_center_crop": False}, "crops to None"),
    ]:
        with pytest.raises(ValueError, match=message):
            Preprocess.from_transformers(CLIPImageProcessorPil(**settings))


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_reading_open_clips_transforms(mode):
    transform = pytest.importorskip("open_clip.transform")
    found = Preprocess.from_open_clip(transform.image_transform(48, is_train=False, resize_mode=mode))
    assert (found.size, found.resize, found.interpolation, found.center) == (48, mode, "bicubic", "round")
    with pytest.raises(ValueError, match="not open_clip's evaluation transform"):
        Preprocess.from_open_clip(lambda image: image)


def test_precisions_leave_the_callers_model_alone(tiny):
    model, _ = tiny
    for precision in ("bfloat16", "guarded"):
        encoder = df.ClipEncoder.from_transformers(*tiny, precision=precision)
        assert encoder.precision == precision
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with pytest.raises(ValueError, match="precision must be one of float32, bfloat16, guarded, got 'fp8'"):
        df.ClipEncoder.from_transformers(*tiny, precision="fp8")


def test_a_broken_model_raises(tiny):
    import copy

    model = copy.deepcopy(tiny[0])
    with torch.no_grad():
        model.text_projection.weight.fill_(float("nan"))
    encoder = df.ClipEncoder.from_transformers(model, tiny[1])
    with pytest.raises(ValueError, match="not finite"):
        encoder.embed_ids(encoder.tokens.encode(["a cat"]))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("./no/such/folder", {}, "encoder './no/such/folder' cannot be loaded with backend 'transformers'.*--encoder"),
        ("ViT-B-32", {"backend": "open_clip"}, "random weights"),
        ("NoSuchNet/openai", {"backend": "open_clip"}, "cannot be loaded with backend 'open_clip'"),
        ("x", {"backend": "tf"}, "backend must be one of transformers, open_clip, got 'tf'"),
        ("x", {"precision": "int4"}, "precision must be one of"),
    ],
)
def test_models_that_cannot_be_loaded(name, settings, message):
    with pytest.raises(ValueError, match=message):
        df.load_encoder(name, **settings)


def test_saved_and_loaded(tiny, tmp_path):
    from transformers import CLIPProcessor

    model, processor = tiny
    model.save_pretrained(tmp_path)
    CLIPProcessor(image_processor=processor.image_processor, tokenizer=processor.tokenizer).save_pretrained(tmp_path)
    encoder = df.load_encoder(tmp_path, precision="float32")
    expected = df.ClipEncoder.from_transformers(*tiny)
    ids = expected.tokens.encode(captions(5))
    assert encoder.tokens.encode(captions(5)) == ids
    torch.testing.assert_close(encoder.embed_ids(ids), expected.embed_ids(ids))


def test_captions_and_pictures_by_themselves(tiny, tmp_path):
    model, processor = tiny
    encoder = df.ClipEncoder.from_transformers(*tiny, precision="guarded")
    texts = ["a red chair", "a cat", "a red chair"]
    shown = shared.picture(3, (90, 70))
    shown.save(tmp_path / "a.png")
    pixels = torch.tensor(list(shown.tobytes()), dtype=torch.uint8).view(70, 90, 3)
    content = (tmp_path / "a.png").read_bytes()
    images = [shown, tmp_path / "a.png", str(tmp_path / "a.png"), content, {"bytes": content}, pixels, pixels.numpy()]
    expected = one_by_one(model, processor, texts, [shown, shown.crop((10, 20, 60, 65))])
    found = encoder.embed_texts(texts)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3), atol=1e-6, rtol=0)
    for image in images:
        found = encoder.embed_images([image, image, image], boxes=[None, (10, 20, 60, 65), (9.6, 20.2, 60.4, 64.9)])
        torch.testing.assert_close(found, expected[1][[0, 1, 1]], atol=1e-6, rtol=0)
    assert torch.equal(encoder.embed_images(images), encoder.embed_images([shown] * 7))
    assert encoder.embed_texts([]).shape == encoder.embed_images([], boxes=[]).shape == (0, found.shape[1])


def test_captions_and_pictures_that_cannot_be_embedded(tiny):
    encoder = df.ClipEncoder.from_transformers(*tiny)
    long = "cat " * 100
    cut = encoder.embed_texts(["a", long], truncate=True)
    inputs = tiny[1].tokenizer(long, truncation=True, max_length=encoder.tokens.context, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(cut[1:], unit(tiny[0].get_text_features(**inputs)), atol=1e-6, rtol=0)
    image = shared.picture(0, (90, 70))
    nan = float("nan")
    for call, message in [
        (lambda: encoder.embed_texts(["a", long]), rf"texts\[1\] has \d+ tokens, .* takes {encoder.tokens.context}"),
        (lambda: encoder.embed_texts("a red chair"), "texts must be a list of strings, got one string"),
        (lambda: encoder.embed_texts([(1, 2)]), r"texts\[0\] must be a string, got tuple"),
        (lambda: encoder.embed_texts(["a", "\ud800"]), r"texts\[1\] cannot be embedded: bad-text"),
        (lambda: encoder.embed_images([image, 5]), r"images\[1\] must be a PIL image"),
        (lambda: encoder.embed_images([image], boxes=[]), "boxes has 0 entries for 1 images"),
        (lambda: encoder.embed_images([image], boxes=[(1, 2, 3)]), r"boxes\[0\] must be four finite numbers"),
        (lambda: encoder.embed_images([image], boxes=[(1, 2, nan, 4)]), r"boxes\[0\] must be four finite numbers"),
        (lambda: encoder.embed_images([image], boxes=[(50, 2, 3, 4)]), r"boxes\[0\] has no pixel of images\[0\]"),
        (lambda: encoder.embed_images([image], boxes=[(90, 0, 99, 9)]), r"boxes\[0\] has no pixel of images\[0\]"),
        (lambda: encoder.embed_texts(None), "texts must be a sequence of strings, got None"),
        (lambda: encoder.embed_texts({"a": 1}), "texts must be a sequence of strings"),
        (lambda: encoder.embed_texts({"a", "b"}), "texts must be a sequence of strings"),
        (lambda: encoder.embed_images(image), "images must be a sequence of pictures"),
        (lambda: encoder.embed_images("a.png"), "images must be a sequence of pictures"),
        (lambda: encoder.embed_images([torch.empty(4, 4, 3, dtype=torch.uint8, device="meta")]), r"images\[0\] is a"),
        (lambda: encoder.embed_images([image], boxes=5), "boxes must be a sequence of boxes"),
        *(
            (lambda box=box: encoder.embed_images([image], boxes=[box]), r"boxes\[0\] must be four finite numbers")
            for box in (
                "1239",
                ("1", "2", "30", "40"),
                b"\x01\x02\x1e\x28",
                (False, False, 9, 9),
                np.array([1, 2, 30, 4j]),
            )
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_captions_pictures_and_boxes_are_read_by_place(tiny):
    encoder = df.ClipEncoder.from_transformers(*tiny)
    images, boxes = [shared.picture(0, (90, 70)), shared.picture(1, (90, 70))], [(1, 2, 30, 40), (5, 6, 70, 60)]
    expected = encoder.embed_images(images, boxes=boxes)
    grad = torch.tensor(boxes, dtype=torch.float32, requires_grad=True)
    for given in (Labelled(boxes), (box for box in boxes), np.array(boxes), grad, [tuple(box) for box in grad]):
        assert torch.equal(encoder.embed_images(iter(images), boxes=given), expected)
    assert torch.equal(encoder.embed_texts(text for text in "ab"), encoder.embed_texts(["a", "b"]))


class Labelled(list):
    """A column that is indexed by labels, as pandas' are: by place it can only be walked through."""

    def __getitem__(self, label):
        return list.__getitem__(self, -1 - label)


def test_python_without_docstrings_is_refused():
    """transformers builds its models with their docstrings; without them one line says so."""
    code = "import dpad_fast as df; df.load_encoder('shapes')"
    done = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "transformers makes its models with docstrings, which python -OO drops" in done.stderr.splitlines()[-1]


def test_loading_shows_no_bar(capfd):
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.enable_progress_bar()
    try:
        df.load_encoder("shapes")
        assert logging.is_progress_bar_enabled()  # the caller's setting stays
        assert "Loading" not in capfd.readouterr().err
    finally:
        if not shown:
            logging.disable_progress_bar()


def test_ids_that_the_model_has_no_row_for_are_refused(tiny):
    encoder = df.ClipEncoder.from_transformers(*tiny)
    (good,) = encoder.tokens.encode(["a cat"])
    for bad, said in (
        ((*good, *[5] * 80), r"ids\[1\] has \d+ tokens, and the model's context 77"),
        ((), r"ids\[1\] has no token"),
        ((3, -1), r"ids\[1\] goes from -1 to 3"),
        ((3, 10**6), rf"ids\[1\] goes from 3 to 1000000, and the model knows 0 to {encoder.tokens.rows - 1}"),
    ):
        with pytest.raises(ValueError, match=said):
            encoder.embed_ids([good, bad])
    assert encoder.embed_ids([good]).shape == (1, encoder.embed_texts(["a"]).shape[1])
