"""Pictures of the paths of packets, as SVG.

Names and messages are untrusted text. They are only ever text of an element, never markup or an attribute.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Sequence

from ..checked.printable import cut, printable
from ..policy.facts import Datapath
from ..policy.paths import LayerKind
from .format import LAYER_WORDS, PLACE_WORDS, path_title, shape_words
from .path_schema import LayerEntry, PathDocument, PathEntry

__all__ = ["COLORS", "STYLE", "draw_text", "escape_text", "render_paths", "render_picture"]

COLORS = {
    Datapath.EMULATED: "#bc4c00",
    Datapath.VIRTIO: "#9a6700",
    Datapath.VHOST: "#0969da",
    Datapath.MACVTAP: "#8250df",
    Datapath.SRIOV: "#1a7f37",
    Datapath.PASSTHROUGH: "#116329",
    Datapath.OTHER: "#59636e",
}
_FONT = "system-ui,'Segoe UI',Helvetica,'DejaVu Sans',sans-serif"
STYLE = (
    f"text{{font-family:{_FONT};font-size:12px;fill:#1f2328;stroke:none}}"
    ".c{text-anchor:middle}.h{fill:#59636e}.s{font-size:11px}.b{font-weight:600}"
)
_LEFT, _COLUMN, _BOX, _ROW, _TOP = 176, 98, 88, 52, 80
_CHARACTERS, _LABEL_CHARACTERS = 14, 23
"""Characters in a line of a box, and in a label at the left."""
_WIDEST = 8
"""Width of a wide character."""
_MOST_BYTES = 1024
"""Maximum size of one text."""


def escape_text(text: str) -> str:
    """Escape text so that HTML and XML show it literally, in ASCII.

    Control characters and lone surrogates become escape sequences, because XML has no form for them.
    """
    return html.escape(printable(cut(text, _MOST_BYTES))).encode("ascii", "xmlcharrefreplace").decode()


def draw_text(x: float, y: float, text: str, attributes: str = "") -> str:
    """Return a text of a picture. The attributes are not escaped, so they are never untrusted."""
    return f"<text x='{x:g}' y='{y:g}'{' ' if attributes else ''}{attributes}>{escape_text(text)}</text>"


def render_picture(
    width: int, height: int, title: str, parts: Iterable[str], *, style: str, background: str = "#ffffff"
) -> list[str]:
    """Return the lines of a picture.

    It has a background of its own, so that it is readable on a light and on a dark page.
    """
    opening = "<svg xmlns='http://www.w3.org/2000/svg' xml:space='preserve' role='img'"
    return [
        f"{opening} viewBox='0 0 {width} {height}' width='{width}'>",
        f"<title>{escape_text(title)}</title>",
        f"<style>{style}</style>",
        f"<rect x='.5' y='.5' width='{width - 1}' height='{height - 1}' rx='8' fill='{background}' stroke='#8c959f'/>",
        *parts,
        "</svg>",
    ]


def render_paths(document: PathDocument) -> list[str]:
    """Return the lines of a picture of all NICs of a VM, one row for each path."""
    rows = [(nic["name"], path) for nic in document["nics"] for path in nic["paths"]]
    shown = {layer["kind"] for _, path in rows for layer in path["layers"]}
    kinds = [kind for kind in LayerKind if kind.value in shown]
    title = path_title(document)
    width, height = max(_LEFT + len(kinds) * _COLUMN + 8, 480), _TOP + len(rows) * _ROW + 34
    parts = [
        draw_text(16, 26, _shorten(title, width // _WIDEST), "class='b'"),
        *_headings(kinds, len(rows)),
        *(line for number, (name, path) in enumerate(rows) for line in _row(number, name, path, kinds)),
        draw_text(16, height - 12, "Line without a box: the layer is left out. Dashed box: not known.", "class='h s'"),
    ]
    return render_picture(width, height, f"Path of a packet: {title}", parts, style=STYLE)


def _headings(kinds: Sequence[LayerKind], rows: int) -> Iterable[str]:
    """Yield one band for each place, with the names of its layers."""
    for place, name in PLACE_WORDS.items():
        columns = [number for number, kind in enumerate(kinds) if kind.place is place]
        if not columns:
            continue
        x, span = _LEFT + columns[0] * _COLUMN, len(columns) * _COLUMN - 2
        yield f"<rect x='{x}' y='72' width='{span}' height='{rows * _ROW + 8}' rx='6' fill='#f6f8fa'/>"
        yield draw_text(x + span / 2, 48, name, "class='c'")
        for number in columns:
            yield draw_text(_LEFT + number * _COLUMN + _COLUMN / 2 - 1, 65, LAYER_WORDS[kinds[number]], "class='c h s'")


def _row(number: int, name: str, path: PathEntry, kinds: Sequence[LayerKind]) -> Iterable[str]:
    """Yield the line of a path and the boxes of the layers that it uses."""
    color = COLORS[Datapath(path["datapath"])]
    layers = {layer["kind"]: layer for layer in path["layers"]}
    yield f"<g transform='translate(0 {_TOP + number * _ROW})' stroke='{color}' stroke-width='1.5'>"
    yield f"<title>{escape_text(f'{name}: {shape_words(path)}')}</title>"
    yield draw_text(16, 20, _shorten(f"{name}: {path['datapath']}", _LABEL_CHARACTERS))
    yield draw_text(16, 36, ", ".join(path["states"]), "class='h s'")
    yield f"<path d='M{_LEFT + 8} 24H{_LEFT + len(kinds) * _COLUMN - 14}'/>"
    for column, kind in enumerate(kinds):
        if kind.value in layers:
            yield from _box(_LEFT + column * _COLUMN + 4, layers[kind.value])
    yield "</g>"


def _box(x: int, layer: LayerEntry) -> Iterable[str]:
    middle = x + _BOX / 2
    if layer["state"] == "LeftOut":
        yield draw_text(middle, 19, "left out", "class='c h s'")
        return
    is_known = layer["state"] == "Used"
    dashes = "" if is_known else " stroke-dasharray='4 3'"
    lines = textwrap.wrap(printable(layer["name"]), _CHARACTERS, max_lines=2, placeholder="…") if is_known else ["not known"]
    yield f"<g><title>{escape_text(layer['text'])}</title>"
    yield f"<rect x='{x}' y='6' width='{_BOX}' height='36' rx='5' fill='#ffffff'{dashes}/>"
    first = 28 if len(lines) < 2 else 21
    for number, line in enumerate(lines):
        yield draw_text(middle, first + number * 14, line, "class='c s'" if is_known else "class='c h s'")
    yield "</g>"


def _shorten(text: str, most: int) -> str:
    text = printable(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"
