"""Where everything of a drawing goes, in pixels from its upper left corner.

Stages stand in a column by rank. An arrow enters its stage on the right if it comes from above, or from the stage
itself, and on the left if it comes from below; so what moves a customer forward is on one side, and what moves them
back on the other. From the stages outwards, each side has a zone of labels, which only level lines cross, and then the
tracks on which arrows run up and down. Each line that leaves or enters a stage has a height of its own there, so no two
arrows share a line, and no label stands on another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from lifecycle_engine.diagrams.arrows import Arrow, arrows
from lifecycle_engine.diagrams.texts import columns, shortened, wrapped
from lifecycle_engine.diagrams.words import Names
from lifecycle_engine.lifecycle.definitions import Definition, Stage

Side = Literal["forward", "back"]
SIDES: tuple[Side, Side] = ("forward", "back")

COLUMN = 6.8
"""Width of a column in the small font, which is of even width."""
NAME_COLUMN = 9.6
"""What a column of a stage's name takes at most, in a font that is not."""
LINE = 14
"""Height of a line in the small font; its letters reach from 10 above their base to 3 below it."""
NAME_LINE = 18
MARGIN = 24
HEAD = 66
NARROWEST = 80
GAP = 26
"""Between two stages."""
PADDING = 10
INDENT = 14
"""Between a stage and the labels beside it; an arrow's head fits in."""
TRACK = 12
PORT = 10
"""Between two lines that leave a stage."""
PILL = 18

_LABEL_COLUMNS = 44
_NAME_COLUMNS = 24
_GUARDS = 3
_REQUIREMENTS = 8


@dataclass(slots=True)
class Leg:
    """An arrow as far as it is on one side.

    `lines` are its label, of which those from `guards` on are guards; a second leg has none, but its number. `ports`
    are the heights at which it leaves its origins, which are listed from the furthest on. `y` is where it enters.
    """

    arrow: Arrow
    side: Side
    origins: tuple[str, ...]
    lines: tuple[str, ...]
    guards: int
    pill: str | None = None
    track: int = -1
    ports: dict[str, float] = field(default_factory=dict)
    y: float = 0

    @property
    def is_loop(self) -> bool:
        return self.origins == (self.arrow.rule.to,)

    @property
    def number(self) -> str:
        return str(self.arrow.rule.index)

    @property
    def width(self) -> float:
        """That of the label and of the pill beneath it."""
        label = COLUMN * max(columns(line) for line in (f"{self.number} {self.lines[0]}", *self.lines[1:]))
        return max(label, self.pill_width + 40 if self.pill else 0)

    @property
    def pill_width(self) -> float:
        return COLUMN * columns(self.pill or "") + 16

    @property
    def lift(self) -> float:
        """How far the base of the label's last line is above the arrow's line: a pill needs room."""
        return 15 if self.pill else 5

    @property
    def above(self) -> float:
        """What the entry needs above the arrow's line."""
        return self.lift + LINE * len(self.lines)

    @property
    def below(self) -> float:
        """What it needs beneath."""
        return 12 if self.pill else 7


@dataclass(slots=True)
class Box:
    """A stage; `requirements` are the lines that tell its entry guards."""

    stage: Stage
    name: list[str]
    requirements: list[str]
    y: float = 0
    height: float = 0

    @property
    def text_height(self) -> float:
        return NAME_LINE * len(self.name) + LINE * (1 + len(self.requirements))

    @property
    def width(self) -> float:
        small = max(map(columns, (self.stage.key, *self.requirements)))
        return max(NARROWEST, max(NAME_COLUMN * max(map(columns, self.name)), COLUMN * small) + 2 * PADDING)


@dataclass(slots=True)
class Drawing:
    """A definition laid out. `left` and `right` are the edges of the stages, `zones` how wide the labels' zones are."""

    called: Names
    boxes: dict[str, Box]
    legs: list[Leg]
    nowhere: tuple[Arrow, ...]
    zones: dict[Side, float]
    left: float
    right: float
    width: float
    bottom: float = 0

    def x(self, side: Side, distance: float) -> float:
        """The place so far outwards from the stages."""
        return self.right + distance if side == "forward" else self.left - distance

    def track_x(self, leg: Leg) -> float:
        return self.x(leg.side, self.zones[leg.side] + TRACK * (leg.track + 1))


def lay_out(definition: Definition, called: Names) -> Drawing:
    """The drawing of a definition."""
    drawn = arrows(definition)
    boxes = {key: _box(stage, called) for key, stage in definition.stages.items()}
    legs = [leg for arrow in drawn for leg in _legs(arrow, definition, called)]
    outside: dict[Side, float] = {}
    zones: dict[Side, float] = {}
    for side in SIDES:
        here = [leg for leg in legs if leg.side == side]
        zones[side] = INDENT + max(leg.width for leg in here) + PADDING if here else 0
        outside[side] = MARGIN + zones[side] + TRACK * _lay_tracks(definition, here)
    left = outside["back"]
    right = left + max(box.width for box in boxes.values())
    nowhere = tuple(arrow for arrow in drawn if not arrow.origins)
    drawing = Drawing(called, boxes, legs, nowhere, zones, left, right, right + outside["forward"])
    _set_heights(drawing)
    return drawing


def _box(stage: Stage, called: Names) -> Box:
    name = wrapped(called.stages[stage.key].text, _NAME_COLUMNS, 3)
    required = [f"{called.words.requires}:"] if stage.requires else []
    required += [shortened(guard.source, _LABEL_COLUMNS) for guard in stage.requires[:_REQUIREMENTS]]
    return Box(stage, name, [*required, *_more(len(stage.requires) - _REQUIREMENTS)])


def _legs(arrow: Arrow, definition: Definition, called: Names) -> Iterator[Leg]:
    target = definition.stages[arrow.rule.to].rank
    lines = [line for line in wrapped(arrow.cause, _LABEL_COLUMNS, 3) if line]
    guards = len(lines)
    for guard in arrow.guards[:_GUARDS]:
        lines += wrapped(guard, _LABEL_COLUMNS, 2)
    lines += _more(len(arrow.guards) - _GUARDS)
    label = tuple(lines) or ("",)
    if arrow.crowd:
        yield Leg(arrow, "forward" if target else "back", (), label, guards, called.words.of(arrow.crowd))
        return
    above = tuple(origin for origin in arrow.origins if definition.stages[origin].rank <= target)
    below = tuple(origin for origin in reversed(arrow.origins) if definition.stages[origin].rank > target)
    if above:
        yield Leg(arrow, "forward", above, label, guards)
    if below:
        yield Leg(arrow, "back", below, ("",) if above else label, guards)


def _more(number: int) -> list[str]:
    return [f"… +{number}"] if number > 0 else []


def _lay_tracks(definition: Definition, legs: Iterable[Leg]) -> int:
    """Puts each leg on the nearest track on which nobody else runs where it does, short ones first. How many there are.

    Places are counted in halves of stages: on the right lines enter the upper half and leave the lower one, on the
    left the other way round.
    """

    def span(leg: Leg) -> tuple[int, int]:
        is_back = leg.side == "back"
        ends = [2 * definition.stages[leg.arrow.rule.to].rank + is_back]
        ends += [2 * definition.stages[origin].rank + (not is_back) for origin in leg.origins]
        return min(ends), max(ends)

    tracks: list[list[tuple[int, int]]] = []
    spans = [(*span(leg), leg) for leg in legs if leg.origins]
    for low, high, leg in sorted(spans, key=lambda one: one[1] - one[0]):
        for leg.track, taken in enumerate(tracks):
            if all(high < begin or end < low for begin, end in taken):
                taken.append((low, high))
                break
        else:
            leg.track = len(tracks)
            tracks.append([(low, high)])
    return len(tracks)


def _set_heights(drawing: Drawing) -> None:
    """Puts the stages below each other, each as high as the lines at its sides need; those cross as little as may be.

    Long ones lie around short ones: the nearer the other end, the nearer to the edge of the stage that faces it.
    """
    entering: dict[tuple[str, Side], list[Leg]] = {(key, side): [] for key in drawing.boxes for side in SIDES}
    leaving: dict[tuple[str, Side], list[Leg]] = {place: [] for place in entering}
    for leg in drawing.legs:
        entering[leg.arrow.rule.to, leg.side].append(leg)
        for origin in leg.origins:
            leaving[origin, leg.side].append(leg)
    y: float = HEAD
    for key, box in drawing.boxes.items():
        needed = {
            side: sum(leg.above + leg.below for leg in entering[key, side]) + PORT * len(leaving[key, side])
            for side in SIDES
        }
        box.y, box.height = y, max(box.text_height, *needed.values()) + 2 * PADDING
        for side in SIDES:
            enter = sorted(entering[key, side], key=lambda leg: (leg.is_loop, leg.track))
            leave = sorted(leaving[key, side], key=lambda leg: (not leg.is_loop, -leg.track))
            if side == "forward":
                _enter(enter, box.y + PADDING)
                _leave(key, leave, box.y + box.height - PADDING - PORT * len(leave))
            else:
                _leave(key, leave[::-1], box.y + PADDING)
                height = sum(leg.above + leg.below for leg in enter)
                _enter(enter[::-1], box.y + box.height - PADDING - height)
        y += box.height + GAP
    drawing.bottom = y - GAP


def _enter(legs: Iterable[Leg], y: float) -> None:
    for leg in legs:
        leg.y = y + leg.above
        y = leg.y + leg.below


def _leave(stage: str, legs: Iterable[Leg], y: float) -> None:
    for place, leg in enumerate(legs):
        leg.ports[stage] = y + PORT * (place + 0.5)
