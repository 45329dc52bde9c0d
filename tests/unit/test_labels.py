"""Which language a label is shown in (RFC 4647, lookup), and what `Accept` and `Accept-Language` say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle_engine.api.door.negotiation import MAX_WISHES, label_of, languages, media_type
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.definitions import compile_definition
from lifecycle_engine.lifecycle.labels import ENGLISH, Label, Range, chosen, label

BUILTIN = ("en", "nl", "sv", "ru", "ja")


@pytest.mark.parametrize(
    ("header", "written", "language"),
    [
        ("nl", BUILTIN, "nl"),
        ("nl-BE", BUILTIN, "nl"),
        ("NL-be", BUILTIN, "nl"),
        ("sv;q=0.5, ja;q=0.7, nl;q=0.6", BUILTIN, "ja"),
        ("ru, ja", BUILTIN, "ru"),
        ("ru;q=0.3, ja;q=0.3", BUILTIN, "ru"),
        ("fr, de;q=0.9", BUILTIN, "en"),
        ("fr, sv;q=0.1", BUILTIN, "sv"),
        ("*", BUILTIN, "en"),
        ("*, sv;q=0.1", BUILTIN, "sv"),
        ("fr, *;q=0.1", BUILTIN, "en"),
        ("", BUILTIN, "en"),
        (None, BUILTIN, "en"),
        ("fr", ("sv", "nl"), "sv"),
        ("fr", (), None),
        ("pt-BR", ("pt", "pt-BR"), "pt-BR"),
        ("pt-BR", ("en", "PT-br"), "PT-br"),
        ("pt", ("en", "pt-BR"), "en"),
        ("zh-Hant-CN-x-private", ("zh", "zh-Hant"), "zh-Hant"),
        ("zh-x-private1", ("zh-x", "zh"), "zh"),
        # What is not wanted at all.
        ("en;q=0", BUILTIN, "nl"),
        ("en;q=0, *", BUILTIN, "nl"),
        ("en;q=0", ("en-GB", "sv"), "sv"),
        ("en;q=0, en-GB", ("en-GB", "sv"), "en-GB"),
        ("en-GB;q=0, en", ("en-GB", "en"), "en"),
        ("*;q=0", BUILTIN, "en"),
        ("*;q=0, en;q=0, sv;q=0.001", BUILTIN, "sv"),
        ("*;q=0, fr", ("sv", "nl"), "sv"),
        # What cannot be read is passed over.
        ("nl;q=high, sv", BUILTIN, "sv"),
        ("nl;q=2, sv;q=0.1", BUILTIN, "sv"),
        ("nl;q=-1, sv;q=0.1", BUILTIN, "sv"),
        ("nl;q=nan, sv;q=0.1", BUILTIN, "sv"),
        ("nl_BE, sv;q=0.1", BUILTIN, "sv"),
        ("*-BE, sv;q=0.1", BUILTIN, "sv"),
        (",;,=;q=,nl ; q=0.5\t, --", BUILTIN, "nl"),
        ("nl;level=1;q=0.5, sv;q=0.4", BUILTIN, "nl"),
        ("fr," * (MAX_WISHES - 1) + "sv", BUILTIN, "sv"),
        ("fr," * MAX_WISHES + "sv", BUILTIN, "en"),
    ],
)
def test_the_language(header: str | None, written: tuple[str, ...], language: str | None) -> None:
    assert chosen(written, languages(header)) == language


TAGS = st.from_regex(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}", fullmatch=True)


@given(st.lists(TAGS), st.text() | st.lists(TAGS).map(",".join))
def test_nothing_errs_and_something_is_shown(written: list[str], header: str) -> None:
    language = chosen(written, languages(header))
    assert language in written if written else language is None


@given(st.lists(TAGS, min_size=1), st.data())
def test_what_is_written_is_found_by_its_name_and_by_more_precise_ones(written: list[str], data: st.DataObject) -> None:
    language = data.draw(st.sampled_from(written))
    more = "".join(data.draw(st.lists(st.sampled_from(["-zz", "-x-zz", "-9zzz"]), max_size=2)))
    taken = [other for other in written if f"{language}{more}-".lower().startswith(f"{other}-".lower())]
    found = chosen(written, languages(f"{language}{more}"))
    assert found is not None
    assert found.lower() == max(taken, key=len).lower()


def test_a_label() -> None:
    assert label({"nl": "Fase"}, "s", ENGLISH) == Label("Fase", "nl")
    assert label({}, "s", (Range("nl", 1.0),)) == Label("s", None)


def test_the_label_of_a_stage() -> None:
    stages = [{"key": "a", "label": {"en": "First", "nl": "Eerste"}}, {"key": "b"}]
    definition = compile_definition({"lifecycle": "x", "initial": "a", "stages": stages}, Cel())
    shown = [label_of(definition, stage, "nl-BE,nl;q=0.9") for stage in ("a", "b", "gone")]
    assert shown == ["Eerste", "b", "gone"]
    assert label_of(definition, "a", None) == "First"


OFFERED = ("image/svg+xml", "text/vnd.mermaid", "text/plain")


@pytest.mark.parametrize(
    ("header", "chosen_type"),
    [
        (None, "image/svg+xml"),
        ("", "image/svg+xml"),
        ("*/*", "image/svg+xml"),
        ("image/*", "image/svg+xml"),
        ("IMAGE/SVG+XML", "image/svg+xml"),
        ("text/*", "text/vnd.mermaid"),
        ("text/plain", "text/plain"),
        ("text/plain; charset=utf-8", "text/plain"),
        ("text/vnd.mermaid;q=0.5, image/svg+xml;q=0.4", "text/vnd.mermaid"),
        ("text/html,application/xhtml+xml,image/webp,*/*;q=0.8", "image/svg+xml"),
        ("image/svg+xml;q=0, */*;q=0.1", "text/vnd.mermaid"),
        ("text/*;q=0.9, text/vnd.mermaid;q=0.1, */*;q=0.5", "text/plain"),
        ("text/plain;q=0, text/plain", None),
        ("application/json", None),
        ("*/*;q=0", None),
        ("svg", "image/svg+xml"),
        ("text/plain;q=x, image/png", None),
    ],
)
def test_the_media_type(header: str | None, chosen_type: str | None) -> None:
    assert media_type(header, OFFERED) == chosen_type


@given(st.text())
def test_no_accept_header_errs(header: str) -> None:
    assert media_type(header, OFFERED) in (*OFFERED, None)
