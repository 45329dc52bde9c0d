"""In which of its languages a label is shown to somebody: the lookup of RFC 4647, section 3.4.

What no lookup finds is shown in English, else in the first language that there is, else by its key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

DEFAULT = "en"


class Range(NamedTuple):
    """A language range, such as `nl-be` or `*`, in lower case, and how much it is wanted: from 0 (not at all) to 1."""

    tag: str
    weight: float


class Label(NamedTuple):
    """A label as it is shown. `language` None: nobody wrote one, and the text is the key."""

    text: str
    language: str | None


ENGLISH = (Range("en", 1.0),)


def label(labels: Mapping[str, str], key: str, wanted: Sequence[Range]) -> Label:
    """The label in the language that is wanted most."""
    language = chosen(labels, wanted)
    return Label(key, None) if language is None else Label(labels[language], language)


def chosen(languages: Iterable[str], wanted: Sequence[Range]) -> str | None:
    """The language that is wanted most; None where there is none to choose from."""
    written: dict[str, str] = {}
    for language in languages:
        written.setdefault(language.lower(), language)
    # Where everything is refused, something has to be shown all the same.
    choices = {tag: language for tag, language in written.items() if not _is_refused(tag, wanted)} or written
    for range_ in sorted(wanted, key=lambda one: -one.weight):
        if range_.weight > 0:
            tag = range_.tag
            while tag:
                if tag in choices:
                    return choices[tag]
                tag = _truncated(tag)
    return choices.get(DEFAULT) or next(iter(choices.values()), None)


def _is_refused(tag: str, wanted: Sequence[Range]) -> bool:
    """Whether the most precise of the ranges that cover the tag has no weight."""
    covering = [one for one in wanted if one.tag == "*" or f"{tag}-".startswith(f"{one.tag}-")]
    return bool(covering) and max(covering, key=lambda one: (one.tag != "*", len(one.tag), one.weight)).weight == 0


def _truncated(tag: str) -> str:
    """Without its last subtag; a single letter, which only introduces what follows it, goes too."""
    tag = tag.rpartition("-")[0]
    return tag[:-2] if tag[-2:-1] == "-" else tag
