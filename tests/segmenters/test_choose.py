"""Segmenters by name: the drawn ones, a user's own, and what is refused."""

import pickle

import numpy as np
import pytest
import torch

from dpad_fast.data import shapes
from dpad_fast.segmenters import make_segmenter
from dpad_fast.types import Completion

BOX = Completion("", box=(1.0, 0.0, 3.0, 2.0))
MODULE = """
import numpy as np
import torch

def by_box(answers, images, sizes):
    return [None if a.box is None else np.full((h, w), i % 2) for i, (a, (w, h)) in enumerate(zip(answers, sizes))]

def tensors(answers, images, sizes):
    return torch.ones(len(answers), 3, 4, dtype=torch.bool)

class Own:
    def segment(self, answers, images, sizes):
        return [np.ones((3, 4), bool)] * len(answers)

own = Own()

def nothing(answers, images, sizes):
    return None

def too_few(answers, images, sizes):
    return [None]

def turned(answers, images, sizes):
    return [np.zeros((4, 3), bool), None]

def grey(answers, images, sizes):
    return [None, np.full((3, 4), 0.5)]

def ragged(answers, images, sizes):
    return [[[True], [True, False]], None]

def two(answers, images):
    return []

def raises(answers, images, sizes):
    return [{}["a mask"] for _ in answers]

number = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "my_segmenters.py").write_text(MODULE)
    (tmp_path / "broken_segmenters.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)


def segment(name, answers, sizes=((4, 3), (4, 3)), images=(None, None)):
    return make_segmenter(name).segment(answers, images, sizes)


def test_box_and_polygon():
    inside = [[False, True, True, False]] * 2 + [[False] * 4]
    assert [mask.tolist() for mask in segment("box", [BOX, BOX])] == [inside] * 2
    assert [mask.tolist() for mask in segment("polygon", [BOX, BOX])] == [inside] * 2
    ring = Completion("", box=BOX.box, rings=(np.array([(1.0, 1.0), (1.0, 2.0), (3.0, 2.0), (3.0, 1.0)]),))
    drawn = [[False] * 4] + [[False, True, True, True]] * 2  # cv2.fillPoly draws the border
    assert segment("polygon", [ring, Completion("")])[0].tolist() == drawn
    assert segment("box", [Completion(""), Completion("", box=("x", 1, 2, 3))]) == [None, None]


def test_several_objects_are_drawn_together():
    objects = (((0.0, 0.0, 1.0, 1.0), (0.0, 0.0)), ((2.0, 2.0, 4.0, 3.0), None), (None, (1.0, 1.0)))
    (mask, nothing) = segment("box", [Completion("", objects=objects), Completion("", objects=())])
    assert mask.astype(int).tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]]
    assert nothing is None


def test_background_takes_pictures_of_any_kind_and_names_what_does_not_fit(tmp_path):
    item = shapes.sample(3, 0)
    item.image.save(tmp_path / "p.png")
    answer = Completion("", box=item.target.box)
    shown = (item.image, tmp_path / "p.png", np.asarray(item.image))
    found = segment("background", [answer] * 3, [(112, 112)] * 3, shown)
    assert all(np.array_equal(mask, found[0]) for mask in found)
    assert (found[0] & item.target.mask).sum() / (found[0] | item.target.mask).sum() > 0.9
    with pytest.raises(ValueError, match=r"images\[1\] is 112x112; .* not \(50, 60\)"):
        segment("background", [answer] * 2, [(112, 112), (50, 60)], (item.image, item.image))
    with pytest.raises(ValueError, match=r"images\[1\]"):
        segment("background", [answer] * 2, [(112, 112)] * 2, (item.image, tmp_path / "none.png"))


def test_a_users_function():
    assert [m if m is None else m.tolist() for m in segment("my_segmenters:by_box", [Completion(""), BOX])] == [
        None,
        [[True] * 4] * 3,
    ]
    for name in ("my_segmenters:tensors", "my_segmenters:own", "my_segmenters:own.segment"):
        assert all(mask.all() and mask.dtype == np.bool_ for mask in segment(name, [BOX, BOX]))
    again = pickle.loads(pickle.dumps(make_segmenter("my_segmenters:by_box")))
    assert again.segment([Completion("")], [None], [(4, 3)]) == [None]
    assert isinstance(segment("my_segmenters:tensors", [BOX, BOX])[0], np.ndarray)
    assert not torch.is_tensor(segment("my_segmenters:tensors", [BOX, BOX])[0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_segmenters:nothing", "returned a NoneType for 2 answers"),
        ("my_segmenters:too_few", "returned 1 entries for 2 answers"),
        ("my_segmenters:turned", r"masks\[0\] has shape \(4, 3\), expected \(height, width\) = \(3, 4\)"),
        ("my_segmenters:grey", r"masks\[1\] must hold booleans or 0 and 1, got float64"),
        ("my_segmenters:ragged", r"masks\[0\] cannot be read as an array"),
    ],
)
def test_what_a_users_function_returns_is_checked(name, message):
    with pytest.raises(ValueError, match=f"segmenter '{name}'.*{message}"):
        segment(name, [BOX, BOX])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("boxes", "segmenter is 'boxes'; known: box, polygon, background, sam2, sam3, sam2:NAME_OR_FOLDER"),
        ("sam2:", "a name or a folder is missing behind the colon"),
        (3, "segmenter must be a name, got int"),
        ("no_such_module:f", "'no_such_module:f' cannot be imported: No module named 'no_such_module'"),
        ("my_segmenters:absent", "cannot be imported: .*absent"),
        ("broken_segmenters:f", "cannot be imported: division by zero"),
        ("my_segmenters:number", "is a int, which cannot be called"),
        ("my_segmenters:two", r"must take \(answers, images, sizes\), three lists"),
    ],
)
def test_what_cannot_be_made_is_refused_at_once(name, message):
    with pytest.raises(ValueError, match=message):
        make_segmenter(name)


def test_a_function_that_raises_is_named():
    with pytest.raises(ValueError, match="segmenter 'my_segmenters:raises' failed: KeyError: 'a mask'"):
        segment("my_segmenters:raises", [BOX, BOX])
