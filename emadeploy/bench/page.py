"""One HTML file that holds everything it shows: a table of facts, plots, and pictures side by side.

Nothing is fetched, nothing runs: it can be mailed, or opened in ten years. All text is escaped here.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emadeploy.contract.drawing import png
from emadeploy.contract.errors import DataError

UInt8 = npt.NDArray[np.uint8]
Rgb = tuple[int, int, int]

_JPEG_QUALITY = 88
#: Columns of a table beyond which its letters are smaller.
_WIDE = 8


@dataclass(frozen=True, eq=False)
class Picture:
    """An image, uint8 (H, W, 3) RGB, with the line under it. ``flat``: few colours with sharp edges, kept exactly."""

    image: UInt8
    caption: str
    flat: bool = False


@dataclass(frozen=True)
class Strip:
    """Pictures in a row, with the name of the row; ``None`` leaves a place empty."""

    name: str
    pictures: Sequence[Picture | None]


@dataclass(frozen=True)
class Facts:
    """A table: ``columns`` are the heads, the first of the row names; a row of one cell is a heading in the table."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Frame:
    """A frame: its title, its strips, its plots, its tables, a note under them.

    ``drawings`` are complete SVG texts as :mod:`emadeploy.bench.plots` makes them: they are not escaped again.
    """

    title: str
    strips: Sequence[Strip] = ()
    note: str = ""
    drawings: Sequence[str] = ()
    tables: Sequence[Facts] = ()


@dataclass(frozen=True)
class Section:
    """Frames under a heading, with a sentence on what they are."""

    title: str
    text: str
    frames: Sequence[Frame]


@dataclass(frozen=True)
class Page:
    """The page. ``warning`` stands out above everything; ``legend``: name -> colour; ``machine``: (what, value)."""

    title: str
    lead: str
    facts: Facts
    sections: Sequence[Section]
    machine: Sequence[tuple[str, str]] = ()
    legend: Sequence[tuple[str, Rgb]] = ()
    warning: str = ""
    footer: Sequence[str] = field(default_factory=tuple)


def write_page(path: Path, page: Page) -> None:
    """Write ``page`` to ``path``, in one step. Raises DataError where the disk refuses."""
    text = render(page)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from None


def render(page: Page) -> str:
    """Return the page as HTML."""
    parts = [
        f"<header><h1>{escape(page.title)}</h1><p class=lead>{escape(page.lead)}</p></header>",
        f"<p class=warning role=note>{escape(page.warning)}</p>" if page.warning else "",
        _facts(page.facts),
        _machine(page.machine),
        _legend(page.legend),
        *(_section(section) for section in page.sections),
        f"<footer>{''.join(f'<p>{escape(line)}</p>' for line in page.footer)}</footer>" if page.footer else "",
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(page.title)}</title>\n<style>\n{_style()}</style></head>\n<body><main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main></body></html>\n"
    )


def _style() -> str:
    return resources.files("emadeploy.bench").joinpath("page.css").read_text(encoding="utf-8")


def _facts(facts: Facts) -> str:
    head = "".join(f"<th scope=col>{escape(column)}</th>" for column in facts.columns)
    rows = []
    for row in facts.rows:
        if len(row) == 1:
            rows.append(f"<tr class=group><th colspan={len(facts.columns)} scope=rowgroup>{escape(row[0])}</th></tr>")
            continue
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        rows.append(f"<tr><th scope=row>{escape(row[0])}</th>{cells}</tr>")
    notes = "".join(f"<p class=note>{escape(note)}</p>" for note in facts.notes)
    table = f"<thead><tr>{head}</tr></thead>\n<tbody>{''.join(rows)}</tbody>"
    wide = " wide" if len(facts.columns) > _WIDE else ""
    return f"<div class=scroll><table class='facts{wide}'>{table}</table></div>{notes}"


def _machine(machine: Sequence[tuple[str, str]]) -> str:
    items = "".join(f"<div><dt>{escape(what)}</dt><dd>{escape(value)}</dd></div>" for what, value in machine)
    return f"<dl class=machine>{items}</dl>" if items else ""


def _legend(legend: Sequence[tuple[str, Rgb]]) -> str:
    items = "".join(
        f'<li><i style="background:rgb({int(r)},{int(g)},{int(b)})"></i>{escape(name)}</li>'
        for name, (r, g, b) in legend
    )
    return f"<ul class=legend aria-label='colours of the labels'>{items}</ul>" if items else ""


def _section(section: Section) -> str:
    frames = "\n".join(_frame(frame) for frame in section.frames)
    return f"<section><h2>{escape(section.title)}</h2><p>{escape(section.text)}</p>\n{frames}</section>"


def _frame(frame: Frame) -> str:
    parts = [f"<h3>{escape(frame.title)}</h3>\n" if frame.title else "", *map(_strip, frame.strips)]
    if frame.drawings:
        parts.append(f"<div class=drawings>{''.join(frame.drawings)}</div>\n")
    parts += map(_facts, frame.tables)
    if frame.note:
        parts.append(f"<p class=note>{escape(frame.note)}</p>")
    return f"<article>{''.join(parts)}</article>"


def _strip(strip: Strip) -> str:
    cells = "".join("<span class=empty></span>" if picture is None else _figure(picture) for picture in strip.pictures)
    return f"<h4>{escape(strip.name)}</h4><div class=strip style='--n:{len(strip.pictures)}'>{cells}</div>\n"


def _figure(picture: Picture) -> str:
    height, width = picture.image.shape[:2]
    caption = escape(picture.caption)
    source = data_uri(picture.image, flat=picture.flat)
    return (
        f'<figure><img src="{source}" width={width} height={height} alt="{escape(picture.caption, quote=True)}" '
        f"loading=lazy><figcaption>{caption}</figcaption></figure>"
    )


def data_uri(image_HW3: UInt8, *, flat: bool = False) -> str:
    """Return an RGB image as a data URI: JPEG, or PNG where it is ``flat`` or OpenCV is not installed."""
    try:
        import cv2
    except ImportError:  # larger, and the same to the eye
        return f"data:image/png;base64,{base64.b64encode(png(image_HW3)).decode('ascii')}"
    kind = "png" if flat else "jpeg"
    options = [cv2.IMWRITE_PNG_COMPRESSION, 9] if flat else [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    done, data = cv2.imencode(f".{kind}", np.ascontiguousarray(image_HW3[:, :, ::-1]), options)
    assert done, "OpenCV encodes every uint8 image"
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode('ascii')}"
