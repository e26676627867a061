"""The page: complete in itself, everything escaped, pictures as they were given."""

import base64
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from emadeploy.bench.page import Facts, Frame, Page, Picture, Section, Strip, data_uri, render, write_page
from emadeploy.contract.errors import DataError

cv2 = pytest.importorskip("cv2")

NASTY = "<script>alert('x')</script> & \"quotes\""


class Tags(HTMLParser):
    """Collects tags with their attributes, and checks that those opened are closed."""

    VOID = ("meta", "img", "link", "br")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def page() -> Page:
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    strips = [
        Strip(NASTY, [Picture(image, NASTY), Picture(image, "labels", flat=True)]),
        Strip("truth", [None, Picture(image, "depth")]),
    ]
    return Page(
        title=NASTY,
        lead=NASTY,
        facts=Facts(("", "published", NASTY), [(NASTY,), ("size", "1", NASTY)], [NASTY]),
        sections=[Section(NASTY, NASTY, [Frame(NASTY, strips, NASTY)])],
        machine=[(NASTY, NASTY)],
        legend=[(NASTY, (1, 2, 3))],
        warning=NASTY,
        footer=(NASTY,),
    )


def parsed(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    tags.close()
    assert tags.open == []
    return tags


def test_the_page_is_complete_in_itself(page: Page) -> None:
    text = render(page)
    tags = parsed(text)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags.found}
    images = [attributes for tag, attributes in tags.found if tag == "img"]
    assert len(images) == 3
    for attributes in images:
        assert attributes["src"].startswith("data:image/")
        assert attributes["alt"]
    assert not re.search(r"(https?:)?//", re.sub(r"data:image/[a-z]+;base64,[A-Za-z0-9+/=]+", "", text))
    assert "url(" not in text
    assert "@import" not in text


def test_all_text_is_escaped(page: Page) -> None:
    text = render(page)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 19  # every place of the page, captions also as alternative text


def test_pictures_are_as_they_were_given() -> None:
    image = np.zeros((8, 24, 3), np.uint8)
    image[:, :8] = (200, 30, 40)
    for flat, kind, tolerance in ((True, "png", 0), (False, "jpeg", 40)):
        uri = data_uri(image, flat=flat)
        head, _, data = uri.partition(",")
        assert head == f"data:image/{kind};base64"
        decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
        assert np.abs(decoded.astype(int) - image)[:, :6].max() <= tolerance


def test_it_is_written_in_one_step(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    write_page(path, page)
    write_page(path, page)
    assert path.read_text() == render(page)
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_page(tmp_path / "file" / "page.html", page)


def test_without_opencv_pictures_are_kept_whole(monkeypatch) -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    monkeypatch.setitem(sys.modules, "cv2", None)
    for flat in (True, False):
        head, _, data = data_uri(image, flat=flat).partition(",")
        assert head == "data:image/png;base64"
        decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
        assert (decoded == image).all()


def test_drawings_and_tables_stand_in_their_frame() -> None:
    frame = Frame("", drawings=["<svg>a</svg>"], tables=[Facts(("layer", "ms"), [(NASTY, "1")])])
    text = render(Page("t", "l", Facts(("a",), []), [Section("s", "t", [frame])]))
    assert "<div class=drawings><svg>a</svg></div>" in text
    assert "<h3>" not in text
    assert "<script" not in text
    parsed(text)
