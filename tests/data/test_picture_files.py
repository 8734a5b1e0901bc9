"""Finding the pictures that annotations name: any name is found or refused in words."""

import pytest
from PIL import Image

from dpad_fast.data.picture_files import PictureFolder


@pytest.mark.parametrize("name", ["gone.png", "a" * 5000, "a\0.png", "pictures", "a.png/b.png"])
def test_a_name_that_is_no_file_is_a_bad_row(name, tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    folder = PictureFolder(tmp_path, tmp_path)
    for _ in range(2):  # the second time, the folder of the last one is known
        with pytest.raises(ValueError, match=r"^x.json: images\[0\]: picture .* is not in .* or its usual folders"):
            folder.find(name, "x.json: images[0]")
        assert folder.find("a.png", "x.json") == str(tmp_path / "a.png")
