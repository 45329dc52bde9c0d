"""The few words that diagrams say themselves, and the labels of a definition, in the language that is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lifecycle_engine.diagrams.arrows import Crowd, Kind
from lifecycle_engine.diagrams.texts import plain
from lifecycle_engine.lifecycle.definitions import Definition
from lifecycle_engine.lifecycle.labels import DEFAULT, Label, Range, chosen, label


class Words(NamedTuple):
    """`rule` explains the numbers at the arrows."""

    touchpoint: str
    timer: str
    condition: str
    any: str
    any_other: str
    start: str
    rule: str
    requires: str
    no_move: str

    def of(self, name: Kind | Crowd) -> str:
        word: str = getattr(self, name.value)
        return word


_WORDS = {
    "en": Words(
        "touchpoint", "timer", "condition", "any stage", "any other stage", "starts here", "place of the rule, from 0",
        "requires", "leads nowhere",
    ),
    "nl": Words(
        "contactmoment", "timer", "voorwaarde", "elke fase", "elke andere fase", "begint hier",
        "plaats van de regel, vanaf 0", "vereist", "leidt nergens heen",
    ),
    "sv": Words(
        "kontaktpunkt", "timer", "villkor", "alla steg", "alla andra steg", "börjar här", "regelns plats, från 0",
        "kräver", "leder ingenstans",
    ),
    "ru": Words(
        "касание", "таймер", "условие", "любой этап", "любой другой этап", "начало", "место правила, от 0",
        "требуется", "никуда не ведёт",
    ),
    "ja": Words(
        "接点", "タイマー", "条件", "全ステージ", "他の全ステージ", "開始", "ルールの位置(0から)", "必要条件",
        "遷移なし",
    ),
}  # fmt: skip


class Names(NamedTuple):
    """What is called how in one diagram; `languages` are those that it speaks, its own words' first."""

    words: Words
    lifecycle: Label
    stages: dict[str, Label]
    languages: tuple[str, ...]


def names(definition: Definition, wanted: Sequence[Range]) -> Names:
    """The names in the language that is wanted most, each as far as somebody has written it."""
    language = chosen(_WORDS, wanted) or DEFAULT
    lifecycle = _visible(label(definition.labels, definition.key, wanted), definition.key)
    stages = {key: _visible(label(stage.labels, key, wanted), key) for key, stage in definition.stages.items()}
    spoken = (language, *(one.language for one in (lifecycle, *stages.values()) if one.language is not None))
    return Names(_WORDS[language], lifecycle, stages, tuple(dict.fromkeys(spoken)))


def _visible(found: Label, key: str) -> Label:
    """The key where the label consists of nothing that can be seen."""
    return found if plain(found.text) else Label(key, None)
