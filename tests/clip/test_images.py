"""Pictures as users hold them: turned by one rule whatever way they come in, and named when they break."""

import base64
import importlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import dpad_fast as df
from dpad_fast.clip.images import Picture, find_keys, find_pictures
from dpad_fast.data import reasonseg
from dpad_fast.ops import roi_clip_preprocess
from dpad_fast.rewards.ahead import embed_ahead
from dpad_fast.testing import noisy_pixels
from dpad_fast.testing import rewards as shared

GOOD = shared.completion()
WIDE, TALL = shared.SIZE, shared.SIZE[::-1]


def turned_file(path, orientation, size=WIDE):
    exif = Image.Exif()
    exif[0x0112] = orientation
    shared.picture(size=size).save(path, exif=exif, quality=95)
    return path


def similarity(encoder, image, size):
    target = df.Target(box=(20, 12, 64, 52), points=((30, 24), (50, 40)), image_size=size)
    encoder.cache.clear()
    batch = df.RewardScorer(df.RewardConfig.preset("dpad"), encoder).score([GOOD], [target], [image])
    return batch.similarity["roi"].item(), batch.similarity["aoi"].item()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_every_way_in_is_turned_alike(encoder, tmp_path, suffix, orientation):
    """Sizes and similarities are those of what `datasets` decodes and transformers loads."""
    datasets = pytest.importorskip("datasets")
    from transformers.image_utils import load_image

    path = turned_file(tmp_path / f"a.{suffix}", orientation)
    content = path.read_bytes()
    size = TALL if orientation > 4 else WIDE
    by_datasets = datasets.Image().decode_example({"bytes": content, "path": None})
    want = similarity(encoder, by_datasets, size)
    ways = {
        "path": path,
        "string": str(path),
        "bytes": content,
        "dictionary": {"bytes": content, "path": "a"},
        "dictionary with a path": {"bytes": None, "path": str(path)},
        "opened": Image.open(path),
        "opened and converted": Image.open(path).convert("RGB"),
        "load_image": load_image(str(path)),
        "transposed": ImageOps.exif_transpose(Image.open(path)),
        "array": np.asarray(by_datasets),
    }
    for name, image in ways.items():
        assert find_pictures([image], None)[0][0].size == size, name
        assert similarity(encoder, image, size) == want, name
    if orientation != 1:  # what was scored before
        unturned = similarity(encoder, np.asarray(shared.picture()), WIDE)
        assert abs(unturned[0] - want[0]) > 1e-3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_op_turns_opened_images(tmp_path, orientation):
    image = Image.open(turned_file(tmp_path / "a.png", orientation))
    want = np.asarray(ImageOps.exif_transpose(image))
    boxes = [None, (5, 6, 60, 70)]
    got = roi_clip_preprocess([image], boxes, [0, 0], size=32)
    assert torch.equal(got, roi_clip_preprocess([want], boxes, [0, 0], size=32))


def test_a_folder_gives_sizes_after_turning(encoder, tmp_path):
    turned_file(tmp_path / "a.jpg", 6)
    (tmp_path / "a.json").write_text(
        '{"text": ["q"], "shapes": [{"label": "target", "points": [[9, 9], [50, 9], [9, 60]]}]}'
    )
    (sample,) = reasonseg.load(tmp_path)
    assert sample.target.image_size == Picture(sample.image, "a").size == TALL
    assert sample.target.mask.shape == TALL[::-1]
    decoded = ImageOps.exif_transpose(Image.open(tmp_path / "a.jpg"))
    assert similarity(encoder, sample.image, TALL) == similarity(encoder, decoded, TALL)


def test_embeddings_made_before_pictures_were_turned_are_not_served(encoder, tmp_path):
    content = turned_file(tmp_path / "a.jpg", 3).read_bytes()
    _, digest = Picture(content, "a").key
    want = similarity(encoder, content, WIDE)
    encoder.cache.clear()
    wrong = torch.nn.functional.normalize(torch.ones(16), dim=0)
    for box in (None, (20, 12, 64, 52)):
        encoder.cache.put(("image", "float32", ("file", digest), box), wrong)
    target = df.Target(box=(20, 12, 64, 52), points=((30, 24), (50, 40)), image_size=WIDE)
    batch = df.RewardScorer(df.RewardConfig.preset("dpad"), encoder).score([GOOD], [target], [content])
    assert (batch.similarity["roi"].item(), batch.similarity["aoi"].item()) == want


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_what_is_embedded_ahead_is_found_by_file_and_by_content(tiny, tmp_path, mode):
    exif = Image.Exif()
    exif[0x0112] = 8
    path = tmp_path / "a.png"
    shared.picture().convert(mode).save(path, exif=exif)
    encoder = df.ClipEncoder.from_transformers(*tiny)
    target = df.Target(box=(20, 12, 64, 52), points=((30, 24), (50, 40)), image_size=TALL)
    assert embed_ahead(encoder, [df.Sample("a", str(path), "q", target)]) == 2
    encoder._inputs = lambda *rest: pytest.fail("embedded again")
    encoder.embed_regions([Picture(str(path), "a")], [(0, None), (0, (20, 12, 64, 52))])
    encoder.embed_regions([Picture(ImageOps.exif_transpose(Image.open(path)), "a")], [(0, None), (0, (20, 12, 64, 52))])


def test_a_rows_truth_overlays_and_the_report_are_in_the_turned_picture(tmp_path):
    from dpad_fast.evaluate.drawing import thumbnail
    from dpad_fast.evaluate.overlays import draw_overlay
    from dpad_fast.segmenters import Prompt
    from dpad_fast.train.reward_functions import parse_solution

    image = Image.open(turned_file(tmp_path / "a.png", 6))
    assert parse_solution({"solution": shared.SOLUTION, "image": image}).image_size == TALL
    plain = ImageOps.exif_transpose(image)
    prompts = [Prompt((5, 6, 30, 90), ((10, 20),), (1,))]
    drawn = draw_overlay(image, None, prompts)
    assert drawn.size[0] * TALL[1] == drawn.size[1] * TALL[0]
    assert drawn.tobytes() == draw_overlay(plain, None, prompts).tobytes()
    assert thumbnail(image, 64)[0] == TALL
    assert thumbnail(image, 64)[1] == thumbnail(plain, 64)[1]


def chunk(kind, content=b""):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*behind, size=(96, 72), cut=None):
    rows = np.hstack([np.zeros((size[1], 1), np.uint8), noisy_pixels(size[1], size[0] * 3)[..., 0]]).tobytes()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)[:cut]) + b"".join(behind) + chunk(b"IEND")


def encoded(kind, image=None):
    file = io.BytesIO()
    (image or shared.picture()).save(file, kind)
    return file.getvalue()


def closed(image):
    image.close()
    return image


BROKEN = {
    "closed": lambda: closed(shared.picture()),
    "closed before it was decoded": lambda: closed(Image.open(io.BytesIO(encoded("JPEG")))),
    "opened PNG, closed": lambda: closed(Image.open(io.BytesIO(encoded("PNG")))),
    "opened, cut off": lambda: Image.open(io.BytesIO(encoded("JPEG")[:1500])),
    "opened PNG, cut off": lambda: Image.open(io.BytesIO(encoded("PNG")[:2000])),
    "opened QOI, cut off": lambda: Image.open(io.BytesIO(b"qoif" + struct.pack(">IIBB", 96, 72, 3, 0))),
    "opened, 13 bytes of a chunk": lambda: Image.open(
        io.BytesIO(png(b"\x00\x00\x00\x05\xff\xfe\x00\x01bytes", cut=5000))
    ),
    "JPEG cut off": lambda: encoded("JPEG")[:1500],
    "PNG cut off": lambda: encoded("PNG")[:2000],
    "broken chunk": lambda: png(b"\x00\x00\x00\x05\xff\xfe\x00\x01bytes", cut=5000),
    "oversized text": lambda: png(chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * (1 << 21)))),
    "QOI": lambda: b"qoif" + struct.pack(">IIBB", 96, 72, 3, 0),
    "NUL in a path": lambda: "a\0b.png",
    "missing path": lambda: "nowhere.png",
    "folder": lambda: ".",
    "empty": lambda: b"",
    "mode La": lambda: Image.new("La", WIDE),
    "bomb": lambda: png(size=(1, 1)).replace(struct.pack(">II", 1, 1), struct.pack(">II", 60_000, 60_000)),
    "data URI": lambda: "data:image/png;base64," + base64.b64encode(bytes(66_000)).decode(),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_broken_picture_is_named(encoder, kind, position):
    images = [shared.picture(i) for i in range(3)]
    images[position] = BROKEN[kind]()
    check_named(encoder, images, position)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_picture_is_named_where_rows_share_it(encoder, kind):
    broken = BROKEN[kind]()
    check_named(encoder, [shared.picture(), broken, broken], 1)
    if isinstance(broken, bytes):  # equal, but not the same object
        check_named(encoder, [shared.picture(), broken, bytes(bytearray(broken))], 1)


@pytest.mark.parametrize("kind", [kind for kind in BROKEN if not isinstance(BROKEN[kind](), str | bytes)])
def test_the_op_names_a_broken_picture(kind):
    with pytest.raises(ValueError, match=r"^images\[1\] "):
        roi_clip_preprocess([shared.picture(), BROKEN[kind]()], None, size=8)


def check_named(encoder, images, position):
    encoder.cache.clear()
    target = df.Target(box=(20, 12, 64, 52), points=((30, 24), (50, 40)))
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad"), encoder)
    with pytest.raises(ValueError, match=rf"^images\[{position}\] ") as caught:
        scorer.score([GOOD] * len(images), [target] * len(images), images)
    assert len(str(caught.value)) < 300
    assert not str(caught.value).endswith(": ")  # says why


@pytest.mark.parametrize("kind", [kind for kind in BROKEN if isinstance(BROKEN[kind](), bytes)])
def test_a_broken_file_of_a_folder_is_named(encoder, tmp_path, kind):
    (tmp_path / "a.png").write_bytes(BROKEN[kind]())
    (tmp_path / "a.json").write_text(
        '{"text": ["q"], "shapes": [{"label": "target", "points": [[9, 9], [50, 9], [9, 60]]}]}'
    )
    with pytest.raises(ValueError, match=r"(a\.png|images\[0\]) "):
        embed_ahead(encoder, reasonseg.load(tmp_path))
    if kind in ("QOI", "bomb", "empty"):  # seen in the header
        with pytest.raises(ValueError, match=r"a\.png (cannot be opened|has more pixels)"):
            list(reasonseg.load(tmp_path))


def test_sound_files_are_decoded_once(encoder, tmp_path, monkeypatch):
    png_plugin = importlib.import_module("PIL.PngImagePlugin")
    path = Path(tmp_path / "a.png")
    shared.picture().save(path)
    decoded = []
    end = png_plugin.PngImageFile.load_end
    monkeypatch.setattr(png_plugin.PngImageFile, "load_end", lambda self: decoded.append(1) or end(self))
    encoder.cache.clear()
    similarity(encoder, path, WIDE)
    similarity(encoder, Image.open(path), WIDE)
    assert len(decoded) == 2  # once each


@pytest.mark.parametrize(("mode", "conversions"), [("RGB", 1), ("L", 1), ("RGBA", 2)])
def test_a_decoded_picture_is_read_once(encoder, monkeypatch, mode, conversions):
    """For its key, for two regions and for two blanked copies of it; once in its own mode, and once as RGB."""
    module = importlib.import_module("dpad_fast.clip.images")
    calls = []
    for name in ("as_pixels", "in_own_mode"):
        read = getattr(module, name)
        monkeypatch.setattr(module, name, lambda image, said, read=read: calls.append(said) or read(image, said))
    encoder.cache.clear()
    targets = [df.Target(box=box, points=((30, 24), (50, 40))) for box in ((20, 12, 64, 52), (5, 5, 40, 60))]
    config = df.RewardConfig.preset("dpad", contrast="blanked", gate=False)
    image = shared.picture().convert(mode)
    df.RewardScorer(config, encoder).score([GOOD] * 2, targets, [image] * 2)
    assert calls == ["images[0]"] * conversions


def data_uri(content, kind="image/png"):
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@pytest.mark.parametrize("wrap", [str, lambda uri: {"bytes": None, "path": uri}, lambda uri: uri.replace("+", "%2B"),
    lambda uri: uri.replace("data:", "DATA:"), lambda uri: uri[:90] + "\n" + uri[90:]])  # fmt: skip
def test_a_data_uri_is_the_picture_that_it_holds(encoder, wrap):
    content = png()
    given = wrap(data_uri(content))
    assert torch.equal(encoder.embed_images([given]), encoder.embed_images([content]))


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("data:image/png;base64," + "x" * 9001, "is a data URI whose base64 cannot be read"),
        ("data:image/png;base64,!!!!", "is a data URI whose base64 cannot be read"),
        ("data:image/svg+xml,<svg/>", "is a data URI but not data:image/"),
        ("data:" + "x" * 9000, "is a data URI but not data:image/"),
        (Path("data:image/svg+xml,<svg"), "is a data URI but not data:image/"),
        (data_uri(b"no picture"), "cannot be opened as an image"),
        (data_uri(b""), "cannot be opened as an image"),
    ],
)
def test_a_broken_data_uri_is_named(encoder, uri, said):
    with pytest.raises(ValueError, match=rf"^images\[1\] {said}") as told:
        encoder.embed_images([png(), uri])
    assert len(str(told.value)) < 250


def test_a_data_uri_is_held_to_the_limit_of_pixels(encoder, monkeypatch):
    monkeypatch.setenv("DPAD_FAST_MAX_PIXELS", "1000")
    with pytest.raises(ValueError, match=r"^images\[0\] has 96 x 72 pixels, more than the limit of 1000"):
        encoder.embed_images([data_uri(png())])


def plain_files():
    """PPM and PGM files: those whose pixels lie in them as they are, and those that Pillow alone reads."""
    colours, grey = noisy_pixels(20, 31), noisy_pixels(20, 31)[..., 0]
    colours[0, 0], grey[0, 0] = (10, 35, 10), 10  # a line end and a #, which begin nothing here
    saved = io.BytesIO()
    Image.fromarray(colours).save(saved, "PPM")
    plain = [
        b"P6 31 20 255\n" + colours.tobytes(),
        saved.getvalue(),
        b"P5\n31 20\n255\n" + grey.tobytes(),
    ]
    other = [
        b"P6 # 31 20\n31 20 255\n" + colours.tobytes(),
        b"P6 31 20 255\n" + colours.tobytes() + b"more",
        b"P6 31 20 7\n" + (colours // 37).tobytes(),
        b"P5 31 20 65535\n" + grey.astype(">u2").tobytes(),
        b"P6 0031 20 255\n" + colours.tobytes(),
        b"P4 31 20\n" + bytes(80),
    ]
    return [(content, True) for content in plain] + [(content, False) for content in other]


@pytest.mark.parametrize(("content", "plain"), plain_files())
def test_pixels_that_lie_in_a_file_as_they_are_are_not_decoded(content, plain, monkeypatch):
    with Image.open(io.BytesIO(content)) as image:
        expected = torch.from_numpy(np.array(image.convert("RGB")))
    opened = []
    module = importlib.import_module("dpad_fast.clip.images")
    monkeypatch.setattr(module, "open_picture", lambda *a, real=module.open_picture: opened.append(a) or real(*a))
    picture = Picture(content, "a")
    assert picture.size == (31, 20)
    for found in (picture.pixels(), picture.in_own_mode()):
        found = found if isinstance(found, torch.Tensor) else torch.from_numpy(np.array(found.convert("RGB")))
        assert torch.equal(found, expected)
    assert bool(opened) is not plain
    del picture, found
    boxes = [(3.0, 2.0, 25.0, 17.0), None]
    one, other = (roi_clip_preprocess([Picture(c, "a").pixels().permute(2, 0, 1)], boxes, [0, 0], size=8)
                  for c in (content, png_of(expected)))  # fmt: skip
    assert torch.equal(one, other)


def png_of(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, "PNG")
    return file.getvalue()


def test_broken_and_huge_plain_files_are_refused_in_pillows_words(monkeypatch):
    whole = b"P6 31 20 255\n" + noisy_pixels(20, 31).tobytes()
    with pytest.raises(ValueError, match=r"^a cannot be decoded: image file is truncated"):
        Picture(whole[:-1], "a").pixels()
    for head in (b"P6 0 20 255\n", b"P6 31 -2 255\n", b"P6 x 20 255\n"):
        with pytest.raises(ValueError, match=r"^a "):
            Picture(head + bytes(99), "a").check()
    monkeypatch.setenv("DPAD_FAST_MAX_PIXELS", "619")
    for ask in (lambda picture: picture.size, lambda picture: picture.pixels()):
        with pytest.raises(ValueError, match=r"^a has 31 x 20 pixels, more than the limit of 619"):
            ask(Picture(whole, "a"))


def test_keys_are_found_together_and_nothing_is_decoded_for_it():
    array = noisy_pixels(30, 41)
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    opened = Image.open(io.BytesIO(file.getvalue()))
    read = Image.open(io.BytesIO(file.getvalue()))
    read.load()
    sources = [Image.fromarray(array), array, torch.from_numpy(array[:, ::2].copy()), read, opened, file.getvalue()]
    sources += [Image.fromarray(array).convert("RGBA"), Image.fromarray(array[..., 0])]
    pictures = [Picture(source, f"images[{i}]") for i, source in enumerate(sources)]
    find_keys(pictures, 2)
    assert [picture.is_known for picture in pictures] == [True] * 4 + [False] * 3 + [True]
    assert opened._im is None
    assert [picture.key for picture in pictures] == [Picture(source, "one").key for source in sources]
    assert len({pictures[i].key for i in (0, 1, 3, 4)}) == 1
    assert len({picture.key for picture in pictures}) == 5
    find_keys([], 2)
    with pytest.raises(ValueError, match=r"images\[5\] has no pixel"):
        find_keys([Picture(np.zeros((0, 4, 3), np.uint8), "images[5]")], 1)


def test_pictures_that_are_made_as_they_are_asked_for_are_told_apart():
    """A column may make each picture when it is read, and nothing else holds it: its identity comes again."""

    class Column(list):
        def __iter__(self):
            return (kind(i) for i, kind in enumerate(list.__iter__(self)))

    def as_dictionary(i):
        return {"bytes": bytes([i]) * 1000, "path": None}

    def as_path(i):
        return Path(f"{i}.png")

    def as_array(i):
        return np.full((5, 4, 3), i, np.uint8)

    for kind in (as_dictionary, as_path, as_array):
        pictures, index = find_pictures(Column([kind] * 50), None)
        assert index == list(range(50)), kind
        assert len(pictures) == 50
    same = as_array(0)
    assert find_pictures([same, as_array(1), same, same], [None, None, "key", None])[1] == [0, 1, 2, 0]
