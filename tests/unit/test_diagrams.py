"""Diagrams tell what the fold does, whole and once, whatever text a document holds; and they can be read."""

from __future__ import annotations

import json
import random
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle_engine.catalog.builtin import builtin_documents
from lifecycle_engine.catalog.documents import read_document
from lifecycle_engine.diagrams.arrows import Crowd, arrows
from lifecycle_engine.diagrams.mermaid import mermaid
from lifecycle_engine.diagrams.svg import svg
from lifecycle_engine.diagrams.texts import columns, fitting, plain, shortened, wrapped
from lifecycle_engine.diagrams.words import names
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.definitions import ActiveDefinition, Definition, Stage, compile_definition
from lifecycle_engine.lifecycle.fold import fold
from lifecycle_engine.lifecycle.journeys import Event
from lifecycle_engine.lifecycle.labels import ENGLISH, Range
from lifecycle_engine.lifecycle.touchpoints import Touchpoint
from tests.unit import strategies
from tests.unit.stopwatch import at_most
from tools.diagrams import draw

LANGUAGES = ("en", "nl", "sv", "ru", "ja")
SVG = "{http://www.w3.org/2000/svg}"

NASTY = (
    *('"', "'", "`", "<", ">", "&", "]]>", "<script>", "</svg>", "<!--", "-->", "--", "%%", "%%{init: {}}%%"),
    *("[", "]", "(", ")", "{", "}", "|", ";", ":", ":::", "#", "#quot;", "&lt;", "\\", "\n", "\r", "\t", "\u2028"),
    *(
        "\u202e",
        "\x01",
        "\x7f",
        "\ufffe",
        "end",
        "subgraph",
        "click s0 href",
        "1. ",
        "- ",
        "*",
        "_",
        "__",
        "$$",
        "\n```",
    ),
    *(
        "ﬂ°°35¶ß",
        "é",
        "e\u0301",
        "漢字",
        "😀",
        "👩\u200d👧",
        "a",
        "word",
        " ",
        "<br/>",
        "style s0 fill:red",
        "@{ shape: x }",
    ),
)
texts = st.lists(st.sampled_from(NASTY) | st.text(min_size=1, max_size=5), min_size=1, max_size=8).map("".join)


def compiled(document: Any) -> Definition:
    return compile_definition(document, Cel())


def builtin(key: str) -> Definition:
    return compiled(read_document(builtin_documents()[key], "application/yaml").data)


def with_timers(rnd: Random) -> dict[str, Any]:
    """A random definition in which some rules are timers, and some lead nowhere."""
    document = strategies.definition(rnd)
    for rule in document["rules"]:
        if "on" in rule and strategies.one_in(rnd, 4):
            del rule["on"]
            rule.pop("when", None)
            rule["after"] = rnd.choice(("1d", "90m", "2w"))
            if strategies.one_in(rnd, 2):
                rule["without"] = rnd.choice(("any", strategies.some(rnd, strategies.TYPES)))
            if strategies.one_in(rnd, 2):
                rule["warn"] = "1h"
    return document


documents = strategies.by_chance(with_timers)


@st.composite
def hostile(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A document full of nasty text, and the same one with harmless text instead."""
    document = draw(documents)
    nasty, harmless = json.loads(json.dumps(document)), json.loads(json.dumps(document))
    nasty["label"] = {"en": draw(texts)[:200]}
    for stage in nasty["stages"]:
        stage["label"] = {"en": draw(texts)[:200]}
    for rule, other in zip(nasty["rules"], harmless["rules"], strict=True):
        text = draw(texts)[:120]
        if "on" in rule:
            rule["on"], other["on"] = [f"x{text}"], ["x"]
        if rule.get("without", "any") != "any":
            rule["without"], other["without"] = [f"x{text}"], ["x"]
        if "when" in rule:
            rule["when"] = [f"traits.x != {json.dumps(text, ensure_ascii=False)}"]
    return nasty, harmless


# -- what is drawn: read back from the pictures ----------------------------------------------------------------------


class Drawn(NamedTuple):
    """What a picture says of one rule. `crowd` is the text of the node that it comes from, if that is no stage."""

    origins: frozenset[str]
    to: str | None
    crowd: str | None
    kind: str | None


_LABEL = r'"((?:[^\W_]|[ =,()…]|(?<=[^\W_])[._/-](?=[^\W_])|#\w{2,7};|<br/>)+)"'
_LINES = {
    "head": re.compile(r"flowchart TB"),
    "stage": re.compile(rf"  s([0-9]+)\({_LABEL}\)"),
    "start": re.compile(r'  start\(\(" "\)\) --> s([0-9]+)'),
    "crowd": re.compile(rf"  (any|any_other)\(\[{_LABEL}\]\)"),
    "rule": re.compile(rf"  (?:(\w+(?: & \w+)*) --- )?r([0-9]+)\[{_LABEL}\]:::rule(?: --> s([0-9]+))?"),
    "dashes": re.compile(r"  linkStyle ([0-9,]+) stroke-dasharray:(7 4|2 3)"),
    "class": re.compile(r"  classDef rule fill:transparent,stroke:transparent"),
}


def read_mermaid(definition: Definition, text: str) -> dict[int, Drawn]:
    """Each rule as the text draws it; fails on anything that is not of the few forms above."""
    stages, rules = list(definition.stages), {}
    seen: dict[str, list[re.Match[str]]] = {name: [] for name in _LINES}
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        (name, found), *more = [(name, found) for name, form in _LINES.items() if (found := form.fullmatch(line))]
        assert not more
        seen[name].append(found)
    assert [int(found[1]) for found in seen["stage"]] == list(range(len(stages)))
    assert [stages[int(found[1])] for found in seen["start"]] == [definition.initial]
    assert (len(seen["head"]), len(seen["class"])) == (1, 1)
    crowds = {found[1]: found[2] for found in seen["crowd"]}
    dashes = {int(link): found[2] for found in seen["dashes"] for link in found[1].split(",")}
    link = 1
    for origins, index, _, to in (found.groups() for found in seen["rule"]):
        assert int(index) not in rules
        assert (origins is None) == (to is None)
        sources = origins.split(" & ") if origins else []
        (kind,) = {dashes.pop(link + place, "solid") for place in range(len(sources) + 1)} if sources else (None,)
        link += len(sources) + 1 if sources else 0
        crowd = crowds[sources[0]] if sources and sources[0] in crowds else None
        from_stages = frozenset() if crowd else frozenset(stages[int(source[1:])] for source in sources)
        rules[int(index)] = Drawn(from_stages, stages[int(to)] if to else None, crowd, kind)
    assert not dashes
    return rules


class Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def read_svg(definition: Definition, root: ElementTree.Element) -> dict[int, Drawn]:
    """Each rule as its lines run: from the stages that they touch to the one that the head points at."""
    stages = dict(zip(definition.stages, (box(one) for one in root.findall(f"{SVG}rect[@class='stage']")), strict=True))

    def at(x: float, y: float) -> str:
        (stage,) = [key for key, one in stages.items() if one.top < y < one.bottom]
        assert min(abs(x - stages[stage].left), abs(x - stages[stage].right)) < 1
        return stage

    rules = {}
    for group in root.findall(f"{SVG}g[@data-rule]"):
        index = int(group.attrib["data-rule"])
        assert index not in rules
        origins, targets, crowds = set[str](), set[str](), set[str | None]()
        for leg in group.findall(f"{SVG}g"):
            (head,) = re.findall(r"^M(\S+) ([^L]+)L", attribute(leg, "head", "d"))
            edge, entry = map(float, head)
            targets.add(at(edge, entry))
            pill = leg.find(f"{SVG}text[@class='pill-text']")
            if pill is not None:
                crowds.add(pill.text)
            else:
                line = attribute(leg, "line", "d")
                line = attribute(leg, "line", "d")
                starts = re.findall(r"M(\S+) ([^\sHVQ]+)H[^MQ]+Q([^MV]+)(V?)", line)
                reach = [float(y) for _, y, _, runs in starts if runs]
                assert all(min(*reach, entry) <= float(y) <= max(*reach, entry) for _, y, _, _ in starts), "all join"
                assert len({bend.split()[0] for _, _, bend, _ in starts}) == 1, "the same track"
                origins |= {at(float(x), float(y)) for x, y, _, _ in starts}
        assert len(targets) <= 1
        assert len(crowds) <= 1
        kind = group.attrib["class"].removeprefix("rule").strip()
        rules[index] = Drawn(frozenset(origins), next(iter(targets), None), next(iter(crowds), None), kind)
    return rules


def attribute(leg: ElementTree.Element, kind: str, name: str) -> str:
    (found,) = leg.findall(f"{SVG}path[@class='{kind}']")
    return found.attrib[name]


def box(rect: ElementTree.Element) -> Box:
    x, y, width, height = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
    return Box(x, y, x + width, y + height)


def origins_of(definition: Definition, drawn: Drawn) -> frozenset[str]:
    """Those that a crowd stands for are all stages, or all but the target."""
    words = names(definition, ENGLISH).words
    if drawn.crowd == words.any:
        return frozenset(definition.stages)
    if drawn.crowd == words.any_other:
        return frozenset(definition.stages) - {drawn.to}
    assert drawn.crowd is None
    return drawn.origins


def leads(definition: Definition, origin: str, index: int) -> bool:
    """Whether the rule, asked of nothing but where it starts and ends, makes a transition: by the fold itself."""
    rule = definition.rules[index]
    starts = {} if rule.origins is None else {"from": sorted(rule.origins)}
    document = {
        "lifecycle": "one",
        "initial": origin,
        "stages": [{"key": key} for key in definition.stages],
        "rules": [{"on": "go", "to": rule.to, "reenter": rule.reenter, **starts}],
        "moves": "any" if definition.moves is None else {key: sorted(to) for key, to in definition.moves.items()},
    }  # fmt: skip
    events: list[Event] = []
    facts = [Touchpoint(type_, "s", type_, at, "c", None, {}, {}) for at, type_ in enumerate(("come", "go"))]
    fold({"one": (ActiveDefinition(1, compiled(document)),)}, facts, tell=events.append)
    return any(event.at == 1 and event.is_stay and event.stage == rule.to for event in events)


@given(documents)
def test_an_arrow_is_drawn_where_some_rule_can_lead(document: dict[str, Any]) -> None:
    definition = compiled(document)
    by_text = read_mermaid(definition, mermaid(definition, ENGLISH))
    by_picture = read_svg(definition, ElementTree.fromstring(svg(definition, ENGLISH)))
    assert list(by_text) == [rule.index for rule in definition.rules], "each rule once, in its order"
    assert set(by_picture) == set(by_text)
    kinds = {"touchpoint": "solid", "timer": "7 4", "condition": "2 3"}
    for rule in definition.rules:
        expected = {origin for origin in definition.stages if leads(definition, origin, rule.index)}
        for drawn in (by_text[rule.index], by_picture[rule.index]):
            assert origins_of(definition, drawn) == expected
            assert drawn.to == (rule.to if expected else None)
        assert by_text[rule.index].crowd == by_picture[rule.index].crowd
        if expected:
            assert by_text[rule.index].kind == kinds[by_picture[rule.index].kind or ""]


def test_what_is_drawn_from_any_stage() -> None:
    stages = [{"key": key} for key in "abc"]
    rules = [
        {"on": "x", "to": "b"},
        {"on": "x", "to": "b", "reenter": True},
        {"on": "x", "from": ["a", "c"], "to": "b"},
        {"on": "x", "from": ["a"], "to": "a"},
    ]
    document = {"lifecycle": "x", "initial": "a", "stages": stages, "rules": rules}
    drawn = [(arrow.crowd, "".join(arrow.origins)) for arrow in arrows(compiled(document))]
    assert drawn == [(Crowd.ANY_OTHER, "ac"), (Crowd.ANY, "abc"), (None, "ac"), (None, "")]
    restricted = compiled({**document, "moves": {"a": ["b"], "b": ["b", "c"]}})
    assert [(arrow.crowd, "".join(arrow.origins)) for arrow in arrows(restricted)] == [
        (None, "a"),
        (None, "ab"),
        (None, "a"),
        (None, ""),
    ]


def test_what_makes_an_arrow() -> None:
    rules: list[dict[str, Any]] = [
        {"on": ["b", "a"], "to": "y"},
        {"after": "14d", "to": "y", "from": ["x"]},
        {"after": "PT90M", "without": ["buy", "ad"], "warn": "1h", "to": "y"},
        {"after": "1d", "without": "any", "to": "y"},
        {"when": [], "to": "y"},
    ]
    definition = compiled({"lifecycle": "x", "initial": "x", "stages": [{"key": "x"}, {"key": "y"}], "rules": rules})
    assert [arrow.cause for arrow in arrows(definition)] == [
        "a, b",
        "after 14d",
        "after 90m without ad, buy, warn 1h",
        "after 1d without any",
        "",
    ]
    assert '"4 condition"' in mermaid(definition, ENGLISH)


# -- text of any kind ------------------------------------------------------------------------------------------------


@given(hostile())
def test_no_text_breaks_out_of_mermaid(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    nasty, harmless = map(compiled, both)
    text = mermaid(nasty, ENGLISH)
    assert read_mermaid(nasty, text) == read_mermaid(harmless, mermaid(harmless, ENGLISH))
    shown = [unescaped(label) for label in re.findall(r"^  s[0-9]+\(\"(.*)\"\)$", text, re.MULTILINE)]
    for stage, label in zip(nasty.stages.values(), shown, strict=True):
        assert label.split("<br/>requires ")[0] == shortened(visible(stage), 60)


def visible(stage: Stage) -> str:
    return stage.labels["en"] if plain(stage.labels["en"]) else stage.key


def unescaped(label: str) -> str:
    named = {"lt": "<", "gt": ">", "amp": "&", "quot": '"'}
    return re.sub(r"#(\w+);", lambda found: named.get(found[1]) or chr(int(found[1])), label)


_ELEMENTS = {f"{SVG}{name}" for name in "svg title desc style rect circle path text tspan g".split()}
_ATTRIBUTES = set(
    "class x y width height rx cx cy r d lang transform data-rule id role aria-labelledby viewBox".split()
)


@given(hostile())
def test_svg_is_well_formed_and_says_everything(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    nasty, harmless = map(compiled, both)
    root = ElementTree.fromstring(svg(nasty, ENGLISH))
    assert {element.tag for element in root.iter()} <= _ELEMENTS
    assert {name for element in root.iter() for name in element.attrib} <= _ATTRIBUTES
    plain_picture = ElementTree.fromstring(svg(harmless, ENGLISH))
    assert read_svg(nasty, root) == read_svg(harmless, plain_picture)
    title, described = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None
    assert described is not None
    assert title.text == (shortened(nasty.labels["en"], 60) or nasty.key)
    shown = [text.text or "" for text in root.iter(f"{SVG}text") if text.get("class") == "name"]
    assert shown == [line for stage in nasty.stages.values() for line in wrapped(visible(stage), 24, 3)]
    for stage in nasty.stages.values():
        assert plain(visible(stage)) in (described.text or "")


@given(texts, st.integers(1, 30), st.integers(1, 4))
def test_text_is_cut_and_broken_to_measure(text: str, most: int, lines: int) -> None:
    whole = plain(text)
    short = shortened(text, most)
    assert columns(short) <= most
    assert short == whole or (short.endswith("…") and whole.startswith(short[:-1]))
    broken = wrapped(text, most, lines)
    assert len(broken) <= lines
    assert all(columns(line) <= most for line in broken)
    told = "".join(broken).replace(" ", "")
    assert told == whole.replace(" ", "") or whole.replace(" ", "").startswith(told.removesuffix("…"))
    assert fitting(whole, columns(whole)) == whole


def test_columns() -> None:
    assert [columns(text) for text in ("abc", "é", "e\u0301", "漢字", "", "\u200d")] == [3, 1, 1, 4, 0, 0]
    assert wrapped("one two three", 7, 3) == ["one two", "three"]
    assert wrapped("one two three", 5, 3) == ["one", "two", "three"]
    assert wrapped("abcdefgh ij", 3, 2) == ["abc", "de…"]
    assert plain("a\n\tb\u202ec\x00 ") == "a b c"


# -- to be looked at -------------------------------------------------------------------------------------------------


def labels(root: ElementTree.Element) -> Iterator[tuple[str, Box]]:
    """The texts with the room that they take. Letters of the small font are 6.6 wide, those of names at most 9.5."""
    for group, element in ((parent, text) for parent in root.iter() for text in parent.findall(f"{SVG}text")):
        kinds = element.get("class", "").split()
        text = "".join(element.itertext())
        advance, size = (12.4, 18) if "title" in kinds else (9.5, 14) if "name" in kinds else (6.65, 11)
        width = columns(text) * advance
        x, y = float(element.attrib["x"]), float(element.attrib["y"])
        if match := re.fullmatch(r"translate\((\S+) (\S+)\)", group.get("transform", "")):
            x, y = x + float(match[1]), y + float(match[2])
        is_back = group.get("class") == "back" and "label" in kinds
        left = x - width if is_back else x - width / 2 if {"name", "key", "pill-text"} & set(kinds) else x
        yield text, Box(left, y - 0.85 * size, left + width, y + 0.25 * size)


def strokes(root: ElementTree.Element) -> Iterator[Box]:
    """The straight parts of all arrows, as thin boxes."""
    for path in root.iter(f"{SVG}path"):
        x = y = 0.0
        for command, numbers in re.findall(r"([MHVQLZh])([^MHVQLZh]*)", path.attrib["d"]):
            values = [float(number) for number in numbers.split()]
            before = (x, y)
            if command == "H":
                x = values[0]
            elif command == "V":
                y = values[0]
            elif len(values) > 1:
                x, y = values[-2], values[-1]
            if command in "HV" and path.get("class") == "line":
                xs, ys = sorted((before[0], x)), sorted((before[1], y))
                yield Box(xs[0] - 0.8, ys[0] - 0.8, xs[1] + 0.8, ys[1] + 0.8)


def assert_legible(picture: str) -> None:
    root = ElementTree.fromstring(picture)
    width, height = (float(root.attrib[name]) for name in ("width", "height"))
    told = list(labels(root))
    stages = [box(one) for one in root.findall(f"{SVG}rect[@class='stage']")]
    for place, (text, one) in enumerate(told):
        assert one.left >= 0, text
        assert one.top >= 0, text
        assert one.right <= width, text
        assert one.bottom <= height, text
        for other, another in told[:place]:
            assert not one.overlaps(another), f"{text!r} stands on {other!r}"
    pills = {text.text for text in root.iter(f"{SVG}text") if text.get("class") == "pill-text"}
    for stroke in strokes(root):
        for text, one in told:
            assert text in pills or not stroke.overlaps(one), f"a line runs through {text!r}"
        assert not any(stroke.overlaps(Box(s.left + 1, s.top, s.right - 1, s.bottom)) for s in stages)
        assert stroke.left >= 0
        assert stroke.right <= width


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("key", builtin_documents())
def test_the_built_in_ones_are_legible(key: str, language: str) -> None:
    definition = builtin(key)
    picture = svg(definition, (Range(language, 1.0),))
    assert_legible(picture)
    assert f'lang="{language}"' in picture
    assert names(definition, (Range(language, 1.0),)).languages == (language,)


@given(hostile())
def test_any_is_legible(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    for document in both:
        assert_legible(svg(compiled(document), ENGLISH))


@given(documents)
def test_no_two_arrows_share_a_line(document: dict[str, Any]) -> None:
    root = ElementTree.fromstring(svg(compiled(document), ENGLISH))
    by_rule = [list(strokes(group)) for group in root.findall(f"{SVG}g[@data-rule]")]
    for place, mine in enumerate(by_rule):
        for one, other in ((one, other) for others in by_rule[:place] for other in others for one in mine):
            is_level = [stroke.bottom - stroke.top < 2 for stroke in (one, other)]
            assert is_level[0] != is_level[1] or not one.overlaps(other)


def test_words_are_there_in_each_language() -> None:
    definition = builtin("five-stages")
    said = {language: names(definition, (Range(language, 1.0),)).words for language in LANGUAGES}
    assert len(set(said.values())) == len(LANGUAGES)
    assert all(all(words) for words in said.values())


def test_languages_are_mixed_where_somebody_has_not_written_all() -> None:
    stages = [{"key": "a", "label": {"nl": "Begin"}}, {"key": "b", "label": {"sv": "Slut"}}, {"key": "c"}]
    definition = compiled({"lifecycle": "x", "initial": "a", "stages": stages})
    called = names(definition, (Range("nl", 1.0),))
    assert [label.text for label in called.stages.values()] == ["Begin", "Slut", "c"]
    assert called.languages == ("nl", "sv")
    assert called.lifecycle.text == "x"


def huge(rules: Mapping[str, Any]) -> Definition:
    rnd, stages = random.Random(4), [f"s{n}" for n in range(100)]
    made = [{**rules, "to": rnd.choice(stages), "reenter": True} for _ in range(500)]
    label = {"en": "Wide " * 40}
    document = {"lifecycle": "x", "initial": "s0", "stages": [{"key": key, "label": label} for key in stages]}
    return compiled({**document, "rules": made})


@pytest.mark.parametrize(
    "rules",
    [
        {"on": "x" * 128, "from": [f"s{n}" for n in range(100)]},
        {"on": [f"type {n}" for n in range(100)], "from": ["s0", "s99"]},
        {"on": "x", "when": ['event.type != "' + "漢" * 600 + '"']},
    ],
)
def test_the_largest_are_drawn_in_time(rules: Mapping[str, Any]) -> None:
    definition = huge(rules)
    with at_most(1):
        assert svg(definition, ENGLISH).count("data-rule=") == 500
    with at_most(1):
        assert mermaid(definition, ENGLISH).count(":::rule") == 500


def test_the_pages_show_the_diagrams(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for key in builtin_documents():
        (tmp_path / f"{key}.md").write_text("before\n<!-- diagram -->\nold\n<!-- /diagram -->\nafter\n")
    assert draw(tmp_path, check=True) == 1
    assert "five-stages.md shows another diagram" in capsys.readouterr().err
    assert draw(tmp_path, check=False) == 0
    assert draw(tmp_path, check=True) == 0
    text = (tmp_path / "five-stages.md").read_text()
    assert text.startswith("before\n<!-- diagram -->\n```mermaid\nflowchart TB\n")
    assert text.endswith("\n```\n<!-- /diagram -->\nafter\n")
    (tmp_path / "five-stages.md").write_text("no place for it\n")
    assert draw(tmp_path, check=False) == 1
