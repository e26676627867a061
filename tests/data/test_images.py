"""Folders of pictures."""

import sys

import numpy as np
import pytest

from emadeploy.contract.errors import BackendMissing, DataError
from emadeploy.data.images import ImageFolder

cv2 = pytest.importorskip("cv2")


def test_pictures_come_in_the_order_of_their_numbers_as_rgb(tmp_path):
    for name in ("10.png", "9.PNG", "a2.jpg", "notes.txt", ".hidden.png"):
        if not name.endswith("txt"):
            pixels_BGR = np.zeros((4, 5, 3), np.uint8)
            pixels_BGR[..., 2] = 200
            (tmp_path / name).write_bytes(cv2.imencode(name.lower()[-4:], pixels_BGR)[1].tobytes())
        else:
            (tmp_path / name).write_text("no picture")
    folder = ImageFolder(tmp_path)
    assert [sample.name for sample in folder] == ["9.PNG", "10.png", "a2.jpg"]
    assert folder.tasks == ()
    assert folder.description == f"images:{tmp_path}"
    sample = folder[1]
    assert sample.truth == {}
    assert sample.image.dtype == np.uint8
    assert sample.image.flags["C_CONTIGUOUS"]
    assert sample.image[0, 0].tolist() == [200, 0, 0]
    assert len(ImageFolder(tmp_path, limit=2)) == 2


def test_missing_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no-such cannot be read: No such file"):
        ImageFolder(tmp_path / "no-such")
    with pytest.raises(DataError, match=r"holds no picture \(.png .jpg .jpeg .* but no file"):
        ImageFolder(tmp_path)


def test_what_is_no_picture_is_refused(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"not a picture")
    folder = ImageFolder(tmp_path)
    with pytest.raises(DataError, match=r"broken.png is damaged, or not a picture"):
        folder[0]
    path.unlink()
    with pytest.raises(DataError, match=r"broken.png cannot be read: No such file"):
        folder[0]


def test_without_opencv_the_line_that_installs_it_is_shown(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(BackendMissing, match=r"reading pictures and video needs opencv.*emadeploy\[robotics\]"):
        ImageFolder(tmp_path)[0]
