"""`images_from`: pictures wherever a trainer or a data set puts them, and odd rows named."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dpad_fast as df
from dpad_fast.row_images import size_of

pd = pytest.importorskip("pandas")

PICTURE = Image.new("RGB", (7, 5), "red")
OTHER = Image.new("RGB", (3, 4), "blue")
STREAM = io.BytesIO()
PICTURE.save(STREAM, "PNG")
PNG = STREAM.getvalue()
BASE64 = base64.b64encode(PNG).decode()
URI = f"data:image/png;base64,{BASE64}"
UNDECODED = {"bytes": PNG, "path": None}
ARRAY = np.zeros((5, 7, 3), np.uint8)


def chat(*blocks):
    return [
        {"role": "system", "content": "Find it."},
        {"role": "user", "content": [*blocks, {"type": "text", "text": "the red one"}]},
    ]


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"image": PICTURE}, [PICTURE]),
        ({"images": [PICTURE, OTHER]}, [PICTURE, OTHER]),
        ({"image": [PICTURE]}, [PICTURE]),
        ({"image": None, "images": [PICTURE]}, [PICTURE]),
        ({"image": PICTURE, "images": [OTHER]}, [PICTURE]),
        ({"images": None}, []),
        ({"images": []}, []),
        ({"image": float("nan")}, []),
        ({"image": "a/b.png"}, ["a/b.png"]),
        ({"image_path": "a.png"}, ["a.png"]),
        ({"image": "file:///data/a%20b.png"}, ["/data/a b.png"]),
        ({"image": '["a.png", "b.png"]'}, ["a.png", "b.png"]),
        ({"image": "[odd] name.png"}, ["[odd] name.png"]),
        ({"image": Path("a.png")}, [Path("a.png")]),
        ({"image": URI}, [URI]),
        ({"image": PNG}, [PNG]),
        ({"image": memoryview(PNG)}, [PNG]),
        ({"image": UNDECODED}, [UNDECODED]),
        ({"images": [UNDECODED, {"bytes": None, "path": "a.png"}]}, [UNDECODED, {"bytes": None, "path": "a.png"}]),
        ({"images": np.array([UNDECODED, UNDECODED], object)}, [UNDECODED, UNDECODED]),
        ({"images": np.array(["a.png"])}, ["a.png"]),
        ({"multi_modal_data": {"image": [PICTURE]}}, [PICTURE]),
        ({"multi_modal_data": {"images": ["a.png", PICTURE]}}, ["a.png", PICTURE]),
        ({"multi_modal_data": {"image": None, "images": [OTHER]}}, [OTHER]),
        ({"raw_prompt": chat({"type": "image", "image": PICTURE})}, [PICTURE]),
        ({"raw_prompt": np.array(chat({"type": "image", "image": "a.png"}), object)}, ["a.png"]),
        ({"raw_prompt": chat({"type": "image", "image": UNDECODED})}, [UNDECODED]),
        ({"prompt": chat({"type": "image"}), "image": PICTURE}, [PICTURE]),
        ({"prompt": chat({"type": "image"}), "images": [OTHER]}, [OTHER]),
        ({"prompt": chat({"type": "image"})}, []),
        ({"prompt": "in words"}, []),
        ({"prompt": "in words", "messages": chat({"type": "image", "url": "a.png"})}, ["a.png"]),
        ({"messages": chat({"type": "image", "path": "a.png"})}, ["a.png"]),
        ({"messages": chat({"type": "image", "base64": BASE64})}, [PNG]),
        ({"messages": chat({"type": "image_url", "image_url": {"url": URI, "detail": "low"}})}, [URI]),
        ({"messages": chat({"type": "image_url", "image_url": URI})}, [URI]),
        ({"messages": chat({"type": "input_image", "image_url": URI})}, [URI]),
        (
            {"messages": chat({"type": "image", "source": {"type": "base64", "media_type": "x", "data": BASE64}})},
            [PNG],
        ),
        ({"messages": chat({"type": "video", "video": "a.mp4"})}, []),
        (pd.Series({"image": "a.png"}), ["a.png"]),
    ],
)
def test_pictures_are_found(row, found):
    assert df.images_from(row) == found


def test_arrays_and_tensors_are_kept_and_batches_taken_apart():
    assert df.images_from({"image": ARRAY})[0] is ARRAY
    tensor = torch.zeros(3, 5, 7, dtype=torch.uint8)
    assert df.images_from({"images": [tensor]})[0] is tensor
    assert [image.shape for image in df.images_from({"images": np.stack([ARRAY, ARRAY])})] == [(5, 7, 3)] * 2


def test_a_column_may_be_named():
    row = {"image": PICTURE, "photo": OTHER, "extra_info": {"path": "a.png"}}
    assert df.images_from(row, "photo") == [OTHER]
    assert df.images_from(row, "extra_info.path") == ["a.png"]
    with pytest.raises(ValueError, match="row has no column 'picture'; it has 'image', 'photo'"):
        df.images_from(row, "picture")


def deep(levels):
    value = ["a.png"]
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"a": 1}, "row has none of the columns image, images, .*; it has 'a'"),
        ({"images": [PICTURE, None]}, r"images\[1\] is None"),
        ({"image": 3}, "image must be a PIL image, .*, got int"),
        ({"images": [[True]]}, "images must be a PIL image, .*, got bool"),
        ({"image": {}}, "image is a dictionary with neither bytes nor path, its keys are: none"),
        ({"image": {"bytes": None, "path": None}}, "image is a dictionary with neither bytes nor path"),
        ({"image": {"bytes": "text", "path": None}}, "image.bytes must be bytes, got str"),
        ({"image": {"bytes": None, "path": 3}}, "image.path must be a path, got 3"),
        ({"image": "https://example.com/a.png"}, "image is on the network, from where nothing is fetched"),
        (
            {"messages": chat({"type": "image_url", "image_url": {"url": "http://x/a.png"}})},
            r"messages\[1\].content\[0\].image_url.url is on the network",
        ),
        ({"messages": chat({"type": "image", "base64": "%%"})}, r"content\[0\].base64 is base64 that cannot be read"),
        ({"messages": chat({"type": "image", "image": 3})}, r"messages\[1\].content\[0\].image must be a PIL image"),
        ({"images": [["a.png", 3.5]]}, r"images\[1\] must be a PIL image, .*, got float"),
        ({"image": {"url": "a.png"}}, "image is a dictionary with neither bytes nor path, its keys are: 'url'"),
        ({"images": deep(20)}, "nested deeper than 8 levels"),
        ({"image": np.array(3)}, "image must be a PIL image, .* an array without dimensions"),
        ({"image": object()}, "image must be a PIL image, .*, got object"),
        ({"messages": 3}, "messages must be a PIL image, .*, got int"),
        (3, "row must be a mapping from column names to values, got int"),
    ],
)
def test_odd_rows_are_named(row, message):
    with pytest.raises(ValueError, match=message):
        df.images_from(row)


def test_a_block_within_itself_ends():
    block = {"type": "image"}
    block["image"] = block
    source = {}
    source["url"] = source
    for odd in (block, {"type": "image_url", "image_url": source}):
        with pytest.raises(ValueError, match="nested deeper than 8 levels"):
            df.images_from({"messages": chat(odd)})


def test_sizes_without_decoding(tmp_path):
    PICTURE.save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes(PNG[:50])
    forms = [PICTURE, PNG, UNDECODED, URI, tmp_path / "a.png", str(tmp_path / "a.png"), ARRAY, ARRAY.transpose(2, 0, 1)]
    assert {size_of(image, "image") for image in forms} == {(7, 5)}
    assert size_of(ARRAY[..., 0], "image") == (7, 5)
    assert size_of(str(tmp_path / "cut.png"), "image") == (7, 5)
    turned, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    PICTURE.save(turned, "JPEG", exif=exif)
    assert size_of(turned.getvalue(), "image") == (5, 7)
    for odd in (b"noise", str(tmp_path / "gone.png"), np.zeros(3, np.uint8), "data:image/png,x"):
        with pytest.raises(ValueError, match=r"^image"):
            size_of(odd, "image")
