"""A definition as Mermaid text: a flowchart in which stages and rules are nodes, and each rule a path between stages.

A flowchart, since its labels may be quoted; everything in them but plain words is written as an entity, so that no
text of a document can end its label, begin a comment or a directive, or be read as markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from lifecycle_engine.diagrams.arrows import Arrow, Crowd, Kind, arrows
from lifecycle_engine.diagrams.texts import shortened, wrapped
from lifecycle_engine.diagrams.words import Names, names
from lifecycle_engine.lifecycle.definitions import Definition
from lifecycle_engine.lifecycle.labels import Range

_LONGEST = 60
"""Columns of a line in a label."""
_RULE_COLUMNS, _RULE_LINES = 44, 3
"""How much is told of a rule's cause, and of each of its guards."""
_SPECIAL = re.compile(r"(?<=[^\W_])[._/-](?=[^\W_])|[=,()…]|([^\w ]|_)")
_NAMED = {"<": "lt", ">": "gt", "&": "amp", '"': "quot"}
_DASHES = {Kind.TIMER: "7 4", Kind.CONDITION: "2 3"}


def mermaid(definition: Definition, wanted: Sequence[Range]) -> str:
    """The text of the diagram, with labels in the language that is wanted most. It ends with a line break."""
    return "".join(f"{line}\n" for line in _lines(definition, names(definition, wanted)))


def _lines(definition: Definition, called: Names) -> Iterator[str]:
    drawn = arrows(definition)
    ids = {key: f"s{stage.rank}" for key, stage in definition.stages.items()}
    yield "flowchart TB"
    for key, stage in definition.stages.items():
        required = [f"{called.words.requires} {guard.source}" for guard in stage.requires]
        yield f"  {ids[key]}({_label(called.stages[key].text, *required)})"
    yield f'  start((" ")) --> {ids[definition.initial]}'
    for crowd in Crowd:
        if any(arrow.crowd is crowd for arrow in drawn):
            yield f"  {crowd.value}([{_label(called.words.of(crowd))}])"
    links = 1
    dashed: dict[Kind, list[int]] = {kind: [] for kind in _DASHES}
    for arrow in drawn:
        node = f"r{arrow.rule.index}[{_label(*_said(arrow, called))}]:::rule"
        if not arrow.origins:
            yield f"  {node}"
            continue
        origins = [arrow.crowd.value] if arrow.crowd else [ids[origin] for origin in arrow.origins]
        yield f"  {' & '.join(origins)} --- {node} --> {ids[arrow.rule.to]}"
        if arrow.kind in dashed:
            dashed[arrow.kind] += range(links, links + len(origins) + 1)
        links += len(origins) + 1
    for kind, found in dashed.items():
        if found:
            yield f"  linkStyle {','.join(map(str, found))} stroke-dasharray:{_DASHES[kind]}"
    yield "  classDef rule fill:transparent,stroke:transparent"


def _said(arrow: Arrow, called: Names) -> list[str]:
    """The lines at an arrow."""
    first, *others = [line for line in (arrow.cause, *arrow.guards) if line] or [called.words.condition]
    lines = [
        line for part in (f"{arrow.rule.index} {first}", *others) for line in wrapped(part, _RULE_COLUMNS, _RULE_LINES)
    ]
    if not arrow.origins:
        lines.append(f"{called.stages[arrow.rule.to].text} ({called.words.no_move})")
    return lines


def _label(*lines: str) -> str:
    return '"' + "<br/>".join(_escaped(shortened(line, _LONGEST)) for line in lines) + '"'


def _escaped(text: str) -> str:
    return _SPECIAL.sub(lambda found: f"#{_NAMED.get(found[1], ord(found[1]))};" if found[1] else found[0], text)
