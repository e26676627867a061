"""The page at /, in a browser; and that the wheel has it."""

import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, find
from site_of import FRAME, Site, wait_until

Image = pytest.importorskip("PIL.Image")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "room.png"
    Image.fromarray(FRAME).save(path)
    return path


def drop(browser: Browser, *files: Path) -> None:
    """Drag files onto the page's field, as the mouse does."""
    box = browser.evaluate("JSON.parse(JSON.stringify(at('drop').getBoundingClientRect()))")
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + 10}
    data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.call("Input.dispatchDragEvent", type=kind, data=data, **place)


@pytest.mark.skipif(find() is None, reason="no Chromium here: apt install chromium")
def test_a_picture_dragged_onto_the_page_shows_its_maps(
    open_site: Callable[..., Site], picture: Path, tmp_path: Path
) -> None:
    site = open_site(token="secret")
    with Browser(find() or "", tmp_path / "profile") as browser:
        browser.call("Page.navigate", url=f"http://{site.address}/")
        wait_until(lambda: browser.evaluate("document.readyState") == "complete")
        assert browser.evaluate("[...at('model').options].map(option => option.value)") == ["tiny"]

        drop(browser, picture)
        wait_until(lambda: "token" in browser.evaluate("at('said').textContent"))
        assert browser.evaluate("at('maps').childElementCount") == 0

        browser.evaluate("at('token').value = 'secret'")
        drop(browser, picture)
        wait_until(lambda: browser.evaluate("at('said').textContent").startswith("done in "))
        wait_until(lambda: browser.evaluate("[...document.images].every(image => image.naturalWidth > 0)"))
        sizes = browser.evaluate("[...document.images].map(image => [image.naturalHeight, image.naturalWidth])")
        assert sizes == [[50, 70], [50, 210]]
        captions = browser.evaluate("[...document.querySelectorAll('figcaption')].map(each => each.textContent)")
        assert captions == ["room.png", "semseg, depth, normals"]
        shown = browser.evaluate(
            "(() => { const canvas = document.createElement('canvas'), image = document.images[1];"
            "canvas.width = 210; canvas.height = 50; const context = canvas.getContext('2d');"
            "context.drawImage(image, 0, 0); return [...context.getImageData(0, 0, 210, 50).data]; })()"
        )
        _, answer = site.post("/v2/models/tiny/image?picture=all", picture.read_bytes(), Authorization="Bearer secret")
        expected = np.asarray(Image.open(io.BytesIO(answer)).convert("RGBA"))
        np.testing.assert_array_equal(np.array(shown, np.uint8).reshape(50, 210, 4), expected)

        text = tmp_path / "notes.txt"
        text.write_text("no picture")
        drop(browser, text)
        wait_until(lambda: browser.evaluate("at('said').textContent") == "the body is neither a JPEG nor a PNG")
        entries = [complaint.get("entry", complaint) for complaint in browser.complaints()]
        assert all("status of 401" in entry["text"] or "status of 415" in entry["text"] for entry in entries), entries


def test_names_cannot_break_out_of_the_page(open_site: Callable[..., Site]) -> None:
    site = open_site()
    status, headers, body = site.ask("/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert 'const MODELS = {"tiny": ["semseg", "depth", "normals"]};' in body.decode()
    assert "http" not in body.decode().replace("http-equiv", "")  # complete in itself


def test_the_wheel_has_the_page(tmp_path: Path) -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel")
    copy = tmp_path / "copy"  # without models, whose weights would take seconds to pack
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        copy.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    for name in ("models", "calibration"):
        (copy / name).mkdir()
    shutil.copytree(ROOT / "emadeploy", copy / "emadeploy", ignore=shutil.ignore_patterns("__pycache__"))
    (built,) = wheel.WheelBuilder(str(copy)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(built) as archive:
        assert archive.read("emadeploy/serve/page.html") == (ROOT / "emadeploy/serve/page.html").read_bytes()
