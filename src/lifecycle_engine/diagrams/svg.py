"""A definition as SVG: one file without scripts or anything from elsewhere, light or dark as its reader has it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby

from lifecycle_engine.diagrams.arrows import Arrow, Kind, arrows
from lifecycle_engine.diagrams.layout import (
    COLUMN,
    GAP,
    INDENT,
    LINE,
    MARGIN,
    NAME_LINE,
    PILL,
    Box,
    Drawing,
    Leg,
    lay_out,
)
from lifecycle_engine.diagrams.texts import columns, plain, shortened
from lifecycle_engine.diagrams.words import Names, Words, names
from lifecycle_engine.lifecycle.definitions import Definition
from lifecycle_engine.lifecycle.labels import Range

_STYLE = """
text{font:11px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#1c2430}
.paper{fill:#fff}
.title,.name{font-family:system-ui,-apple-system,"Segoe UI","Noto Sans","DejaVu Sans",sans-serif;font-weight:600}
.title{font-size:18px}
.name{font-size:14px;text-anchor:middle}
.key{text-anchor:middle}
.key,.guard{fill:#5b6573}
.stage{fill:#f4f6f9;stroke:#aab4c2}
.initial{fill:#1c2430}
.back .label{text-anchor:end}
.number{font-weight:700}
.line{fill:none;stroke-width:1.6}
.timer .line{stroke-dasharray:7 4}
.condition .line{stroke-dasharray:1.6 3.6;stroke-linecap:round}
.forward .line{stroke:#1f6fb2}
.forward .head,.forward .number{fill:#1f6fb2}
.back .line{stroke:#b3540e}
.back .head,.back .number{fill:#b3540e}
.pill{fill:#fff;stroke:#aab4c2}
.pill-text{text-anchor:middle}
.rule:hover .line{stroke-width:3}
.legend .line{stroke:#5b6573}
@media (prefers-color-scheme:dark){
text{fill:#e4e9f0}
.paper,.pill{fill:#12161c}
.key,.guard{fill:#98a4b3}
.stage{fill:#1d242d;stroke:#4a5666}
.pill{stroke:#4a5666}
.initial{fill:#e4e9f0}
.legend .line{stroke:#98a4b3}
.forward .line{stroke:#6cb2f0}
.forward .head,.forward .number{fill:#6cb2f0}
.back .line{stroke:#f0a050}
.back .head,.back .number{fill:#f0a050}
}
"""
POLICY = f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
"""The content security policy under which a browser shows it whole."""

_RADIUS = 6
_TITLE = 60
"""Columns of the title."""
_TITLE_COLUMN = 12.5
_TOLD = 400
"""Columns of what is told of one rule to those who point at it, or have it read to them."""
_SAMPLE = 30
"""Length of a line in the legend."""


def svg(definition: Definition, wanted: Sequence[Range]) -> str:
    """The text of the diagram, with labels in the language that is wanted most."""
    drawing = lay_out(definition, names(definition, wanted))
    return "".join(f"{part}\n" for part in _document(definition, drawing))


def _document(definition: Definition, drawing: Drawing) -> Iterator[str]:
    called = drawing.called
    told = {arrow.rule.index: _told(arrow, called) for arrow in arrows(definition)}
    title = shortened(called.lifecycle.text, _TITLE)
    samples = _samples(called.words)
    least = max(*(_sample_width(word) for _, word in samples), _TITLE_COLUMN * columns(title))
    width = max(drawing.width, least + 2 * MARGIN)
    foot = drawing.bottom + GAP + LINE * len(drawing.nowhere)
    legend, height = _legend(samples, foot + LINE, width - 2 * MARGIN)
    stages = " → ".join(plain(one.text) for one in called.stages.values())
    yield (
        '<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="diagram-title diagram-desc"'
        f' lang="{escape(called.languages[0])}" viewBox="0 0 {width:g} {height:g}"'
        f' width="{width:g}" height="{height:g}">'
    )
    yield f'<title id="diagram-title">{escape(title)}</title>'
    yield f'<desc id="diagram-desc">{escape("; ".join((stages, *told.values())))}</desc>'
    yield f"<style>{_STYLE}</style>"
    yield '<rect class="paper" width="100%" height="100%"/>'
    yield _text(MARGIN, 36, title, "title", called.lifecycle.language)
    for key, box in drawing.boxes.items():
        yield from _stage(drawing, box, called.stages[key].language, key == definition.initial)
    for index, legs in groupby(drawing.legs, key=lambda leg: leg.arrow.rule.index):
        yield from _rule(drawing, list(legs), told[index])
    room = int((width - 2 * MARGIN) / COLUMN)
    for place, arrow in enumerate(drawing.nowhere):
        line = told[arrow.rule.index]
        text = _text(MARGIN, drawing.bottom + GAP + LINE * place, shortened(line, room), "guard")
        yield f'<g class="rule" data-rule="{arrow.rule.index}"><title>{escape(line)}</title>{text}</g>'
    yield f'<g class="legend">{legend}</g>'
    yield "</svg>"


def _told(arrow: Arrow, called: Names) -> str:
    """The whole of a rule in words."""
    words = called.words
    origins = words.of(arrow.crowd) if arrow.crowd else ", ".join(called.stages[key].text for key in arrow.origins)
    said = " && ".join(part for part in (arrow.cause, *arrow.guards) if part)
    return shortened(
        f"{arrow.rule.index}: {origins or words.no_move} → {called.stages[arrow.rule.to].text}: {said}", _TOLD
    )


def _stage(drawing: Drawing, box: Box, language: str | None, is_initial: bool) -> Iterator[str]:
    width = drawing.right - drawing.left
    middle = drawing.left + width / 2
    yield (f'<rect class="stage" x="{drawing.left:g}" y="{box.y:g}" width="{width:g}" height="{box.height:g}" rx="8"/>')
    if is_initial:
        yield f'<circle class="initial" cx="{drawing.left + 14:g}" cy="{box.y:g}" r="4.5"/>'
    y = box.y + (box.height - box.text_height) / 2 - 4
    for line in box.name:
        y += NAME_LINE
        yield _text(middle, y, line, "name", language)
    for line in (box.stage.key, *box.requirements):
        y += LINE
        yield _text(middle, y, line, "key")


def _rule(drawing: Drawing, legs: Sequence[Leg], told: str) -> Iterator[str]:
    arrow = legs[0].arrow
    yield f'<g class="rule {arrow.kind.value}" data-rule="{arrow.rule.index}"><title>{escape(told)}</title>'
    for leg in legs:
        yield f'<g class="{leg.side}">{_line(drawing, leg)}{_head(drawing, leg)}{_label(drawing, leg)}</g>'
    yield "</g>"


def _line(drawing: Drawing, leg: Leg) -> str:
    """Into the stage; there from the furthest origin, and from nearer ones until they join that line."""
    edge, end = drawing.x(leg.side, 0), drawing.x(leg.side, 7)
    if leg.pill is not None:
        middle = drawing.x(leg.side, drawing.zones[leg.side] - leg.pill_width / 2)
        return (
            f'<path class="line" d="M{drawing.x(leg.side, drawing.zones[leg.side]):g} {leg.y:g}H{end:g}"/>'
            f'<rect class="pill" x="{middle - leg.pill_width / 2:g}" y="{leg.y - PILL / 2:g}"'
            f' width="{leg.pill_width:g}" height="{PILL}" rx="{PILL / 2:g}"/>'
            + _text(middle, leg.y + 4, leg.pill, "pill-text")
        )
    track = drawing.track_x(leg)
    bend = min(_RADIUS, *(abs(leg.y - port) / 2 for port in leg.ports.values()))
    near = track - bend if leg.side == "forward" else track + bend
    parts = [f"M{near:g} {leg.y:g}H{end:g}"]
    joined = set[float]()
    for port in (leg.ports[origin] for origin in leg.origins):
        towards = bend if leg.y > port else -bend
        parts.append(f"M{edge:g} {port:g}H{near:g}Q{track:g} {port:g} {track:g} {port + towards:g}")
        # From above, and where the stage itself is an origin also from below.
        if towards not in joined:
            joined.add(towards)
            parts.append(f"V{leg.y - towards:g}Q{track:g} {leg.y:g} {near:g} {leg.y:g}")
    return f'<path class="line" d="{"".join(parts)}"/>'


def _head(drawing: Drawing, leg: Leg) -> str:
    tip, back = drawing.x(leg.side, 0.5), drawing.x(leg.side, 9)
    return f'<path class="head" d="M{tip:g} {leg.y:g}L{back:g} {leg.y - 4.5:g}V{leg.y + 4.5:g}Z"/>'


def _label(drawing: Drawing, leg: Leg) -> str:
    x, base = drawing.x(leg.side, INDENT), leg.y - leg.lift - LINE * (len(leg.lines) - 1)
    texts = []
    for place, line in enumerate(leg.lines):
        number = f'<tspan class="number">{leg.number}</tspan> ' if place == 0 else ""
        kind = "guard label" if place >= leg.guards else "label"
        texts.append(f'<text class="{kind}" x="{x:g}" y="{base + LINE * place:g}">{number}{escape(line)}</text>')
    return "".join(texts)


def _samples(words: Words) -> list[tuple[str, str]]:
    """What the legend shows, with its meaning."""
    lines = [(f'<g class="{kind.value}"><path class="line" d="M0 0h{_SAMPLE}"/></g>', words.of(kind)) for kind in Kind]
    start = f'<circle class="initial" cx="{_SAMPLE - 5}" r="4.5"/>'
    number = f'<text class="number" x="{_SAMPLE - 9}" y="4">0</text>'
    return [*lines, (start, words.start), (number, words.rule)]


def _sample_width(word: str) -> float:
    return _SAMPLE + 8 + COLUMN * columns(word)


def _legend(samples: Sequence[tuple[str, str]], y: float, width: float) -> tuple[str, float]:
    """The samples in rows of this width, and where the picture ends beneath them."""
    x, parts = 0.0, []
    for sample, word in samples:
        if x and x + _sample_width(word) > width:
            x, y = 0.0, y + 2 * LINE
        parts.append(f'<g transform="translate({MARGIN + x:g} {y:g})">{sample}{_text(_SAMPLE + 8, 4, word)}</g>')
        x += _sample_width(word) + 24
    return "".join(parts), y + MARGIN


def _text(x: float, y: float, text: str, kind: str | None = None, language: str | None = None) -> str:
    attributes = "".join(f' {name}="{escape(value)}"' for name, value in (("class", kind), ("lang", language)) if value)
    return f'<text{attributes} x="{x:g}" y="{y:g}">{escape(text)}</text>'
