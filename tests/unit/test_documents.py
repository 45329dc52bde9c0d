"""Reading YAML 1.2 and JSON: plain data, the places of its parts, and a clear error for everything else."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle_engine.catalog.documents import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_VALUES,
    Document,
    DocumentError,
    MediaTypeError,
    read_document,
)
from tests.unit.stopwatch import at_most

YAML = "application/yaml"
JSON = "application/json"


def yaml(text: str | bytes) -> Any:
    return read_document(text, YAML).data


def refused(text: str | bytes, media_type: str = YAML) -> tuple[str, int, int]:
    with pytest.raises(DocumentError) as raised:
        read_document(text, media_type)
    error = raised.value
    assert str(error) == f"line {error.line}, column {error.column}: {error.message}"
    return error.message, error.line, error.column


def test_yaml_is_read_by_the_core_schema_of_1_2() -> None:
    words = yaml("[on, off, yes, No, y, n, 2026-01-01, 12:30:00, 1_000, 0b1, 03-01, '7', \"true\", =, 1.2.3, NAN]")
    assert words == "on off yes No y n 2026-01-01 12:30:00 1_000 0b1 03-01 7 true = 1.2.3 NAN".split()
    assert yaml("[true, True, FALSE, null, ~, NULL, '']") == [True, True, False, None, None, None, ""]
    numbers = yaml("[0, -7, +7, 007, 0o17, 0xfF, 1.5, .5, 5., -1e3, 1E-2, 9223372036854775807, -9223372036854775808]")
    assert numbers == [0, -7, 7, 7, 15, 255, 1.5, 0.5, 5.0, -1000.0, 0.01, 2**63 - 1, -(2**63)]
    assert [type(number) for number in numbers[5:9]] == [int, float, float, float]
    assert yaml("on: {no: a}\nlabel:") == {"on": {"no": "a"}, "label": None}
    assert yaml("|\n  a\n  b\n") == "a\nb\n"
    assert yaml('"\\u00e9 \\ud83d\\ude00 \\t"') == "é 😀 \t"


def test_anchors_aliases_and_merge_keys() -> None:
    text = """\
base: &base {a: 1, b: [2]}
other: &other {b: 3, c: 4}
one: {<<: *base, a: 9}
two: {z: 0, <<: [*base, *other]}
same: [*base, *base]
quoted: {"<<": 1}
"""
    data = yaml(text)
    assert data["one"] == {"a": 9, "b": [2]}
    assert data["two"] == {"z": 0, "a": 1, "b": [2], "c": 4}
    assert data["same"] == [{"a": 1, "b": [2]}] * 2
    assert data["quoted"] == {"<<": 1}
    document = read_document(text, YAML)
    places = {"/one/a": (3, 18), "/one/b": (1, 20), "/two/c": (2, 22), "/same/1": (5, 15), "/same/1/b/0": (1, 24)}
    assert {pointer: document.locate(pointer) for pointer in places} == places


YAML_TEXT = """\
# a comment
lifecycle: small
"a/b~c": 1
rules:
  - on: buy
    when:
      - "1 < 2"
      - {deep: [x,
                y]}
"""
YAML_PLACES = {
    "": (2, 1),
    "/lifecycle": (2, 1),
    "/a~1b~0c": (3, 1),
    "/rules": (4, 1),
    "/rules/0": (5, 5),
    "/rules/0/on": (5, 5),
    "/rules/0/when/0": (7, 9),
    "/rules/0/when/1/deep": (8, 10),
    "/rules/0/when/1/deep/1": (9, 17),
    "/rules/0/when/1/shallow": (8, 9),
    "/rules/7/to": (4, 1),
    "/nothing/of/that": (2, 1),
}
JSON_TEXT = """\
\ufeff {"lifecycle": "small",
  "a/b~c": 1,\t"rules": [ {"on": "buy",
    "when": ["1 < 2", {"deep":
      ["x", "y"]}]}]}
"""
JSON_PLACES = {
    "": (1, 2),
    "/lifecycle": (1, 3),
    "/a~1b~0c": (2, 3),
    "/rules": (2, 15),
    "/rules/0": (2, 26),
    "/rules/0/when/0": (3, 14),
    "/rules/0/when/1/deep": (3, 24),
    "/rules/0/when/1/deep/1": (4, 13),
    "/rules/0/when/1/shallow": (3, 23),
    "/rules/7/to": (2, 15),
}


@pytest.mark.parametrize(
    ("text", "media_type", "places"), [(YAML_TEXT, YAML, YAML_PLACES), (JSON_TEXT, JSON, JSON_PLACES)]
)
def test_pointers_lead_to_lines_and_columns(text: str, media_type: str, places: dict[str, tuple[int, int]]) -> None:
    document = read_document(text, media_type)
    assert document.data == {
        "lifecycle": "small",
        "a/b~c": 1,
        "rules": [{"on": "buy", "when": ["1 < 2", {"deep": ["x", "y"]}]}],
    }
    assert {pointer: document.locate(pointer) for pointer in places} == places
    assert document.text == text.removeprefix("\ufeff")


@pytest.mark.parametrize("media_type", [YAML, "text/yaml; charset=utf-8", "APPLICATION/X-YAML", "application/a+yaml"])
def test_media_types_of_yaml(media_type: str) -> None:
    assert read_document("a: on", media_type).data == {"a": "on"}


@pytest.mark.parametrize("media_type", [JSON, "application/json;charset=utf-8", "application/vnd.lifecycle+json"])
def test_media_types_of_json(media_type: str) -> None:
    assert read_document(b'{"a": "\xc3\xa9"}', media_type).data == {"a": "é"}
    assert refused("a: on", media_type) == ("not JSON: expecting value", 1, 1)


def test_another_media_type_is_refused() -> None:
    with pytest.raises(MediaTypeError, match="'text/plain' is neither JSON nor YAML"):
        read_document("a: on", "text/plain")


@pytest.mark.parametrize(
    ("text", "message", "line", "column"),
    [
        ("", "the document is empty", 1, 1),
        (" \n\t", "the document is empty", 1, 1),
        ("# nothing\n", "the document is empty", 1, 1),
        ("a: b\nc: \ud800", "half a surrogate pair is no text", 2, 4),
        (b"a: b\nc: \xc3\xa9 \xff", "the document is not UTF-8", 2, 6),
        (b"\xff\xfea\0", "the document is not UTF-8", 1, 1),
        ("a: b\nc: \x07", "this character is not allowed in YAML", 2, 4),
        ("a: b\n\tc: d", "found character '\\t' that cannot start any token", 2, 1),
        ("a: [1\nb: 2", "while parsing a flow sequence", 2, 2),
        ("a: 'x", "found unexpected end of stream", 1, 6),
        ("a: b: c", "mapping values are not allowed here", 1, 5),
        ('a: "\\q"', "found unknown escape character 'q'", 1, 6),
        ('a: "\\UFFFFFFFF"', "not YAML, near here", 1, 1),
        ('- a\n- "\\ud800"', "half a surrogate pair is no text", 2, 3),
        ('- a\n- "\\0"', "the character NUL is not allowed", 2, 3),
        ("a: 1\nb: 2\na: 3", "'a' is there already", 3, 1),
        ("<<: {a: 1}\n<<: {b: 1}", "'<<' is there already", 2, 1),
        ("<<: 1", "a merge key (<<) takes a map, or a list of maps", 1, 1),
        ("<<: [{a: 1}, 2]", "a merge key (<<) takes a map, or a list of maps", 1, 1),
        ("a: !!python/object/apply:os.system [x]", "tags such as tag:yaml.org,2002:python/object/apply:os.sy", 1, 4),
        ("- !new {a: 1}", "tags such as !new are not supported", 1, 3),
        ("a: !!str 1", "tags such as tag:yaml.org,2002:str are not", 1, 4),
        ("!!str a: 1", "a name is text, without a tag or an anchor", 1, 1),
        ("&a a: 1", "a name is text, without a tag or an anchor", 1, 1),
        ("{[a]: 1}", "a name is text, without a tag or an anchor", 1, 2),
        ("a: 1\n7: 1", "a name is text: put '7' in quotes", 2, 1),
        ("true: 1", "a name is text: put 'true' in quotes", 1, 1),
        ("a: *b", "there is no anchor &b above", 1, 4),
        ("a: &a {b: *a}", "*a stands within what it repeats", 1, 11),
        ("&a [*a]", "*a stands within what it repeats", 1, 5),
        ("a: 1\n---\nb: 1", "a second document begins here", 2, 1),
        ("a: .inf", ".inf is no number that JSON can hold", 1, 1),
        ("[1,\n .NaN]", ".NaN is no number that JSON can hold", 2, 2),
        ("[-.Inf]", "-.Inf is no number that JSON can hold", 1, 2),
        ("- 1e999", "the number 1e999 is beyond a double", 1, 3),
        ("- 9223372036854775808", "the integer 9223372036854775808 does not fit into 64 bits", 1, 3),
        ("- 0xffffffffffffffff", "does not fit into 64 bits", 1, 3),
        ("- " + "9" * 10_000, "does not fit into 64 bits", 1, 3),
        ("...\n", "expected the node content", 1, 1),
        ("%YAML 3.0\n---\na", "found incompatible YAML document", 1, 1),
    ],
)
def test_what_is_no_yaml_that_we_read(text: str | bytes, message: str, line: int, column: int) -> None:
    told = refused(text)
    assert message in told[0]
    assert told[1:] == (line, column)
    assert len(told[0]) < 300


@pytest.mark.parametrize(
    ("text", "message", "line", "column"),
    [
        ("", "the document is empty", 1, 1),
        ('{"a": 1,\n"a": 2}', "'a' is there already", 2, 1),
        ('{"a": NaN}', "NaN is not JSON", 1, 7),
        ("[-Infinity]", "-Infinity is not JSON", 1, 2),
        ("[1e999]", "the number 1e999 is beyond a double", 1, 2),
        ("[9223372036854775808]", "does not fit into 64 bits", 1, 2),
        ("[-" + "9" * 10_000 + "]", "does not fit into 64 bits", 1, 2),
        ("[01]", "expected a comma or ]", 1, 3),
        ("[1,]", "not JSON: expecting value", 1, 4),
        ("[1 2]", "expected a comma or ]", 1, 4),
        ("[1", "expected a comma or ]", 1, 3),
        ("[", "not JSON: expecting value", 1, 2),
        ("{", "expected a name in double quotes", 1, 2),
        ("{a: 1}", "expected a name in double quotes", 1, 2),
        ('{"a": 1,}', "expected a name in double quotes", 1, 9),
        ('{"a" 1}', "expected a colon", 1, 6),
        ('{"a": 1 "b": 2}', "expected a comma or }", 1, 9),
        ('{"a', "unterminated string", 1, 2),
        ('"a\nb"', "invalid control character", 1, 3),
        ('"\\x"', "invalid \\escape", 1, 2),
        ('["\\ud800"]', "half a surrogate pair is no text", 1, 2),
        ('{"a": "\\u0000"}', "the character NUL is not allowed", 1, 2),
        ("[1] x", "the document goes on after its end", 1, 5),
        ("// a\n1", "not JSON: expecting value", 1, 1),
        ("'a'", "not JSON: expecting value", 1, 1),
    ],
)
def test_what_is_no_json(text: str, message: str, line: int, column: int) -> None:
    told = refused(text, JSON)
    assert message in told[0]
    assert told[1:] == (line, column)


def test_json_is_read_as_python_reads_it() -> None:
    text = '{"a": [], "b": {}, "c": [1, -0, 1.0, -0.0, 1E5, 1e-7, true, false, null, "\\u00e9\\ud83d\\ude00\\n", ""]}'
    assert repr(read_document(text, JSON).data) == repr(json.loads(text))
    assert read_document(" 7 ", JSON).data == 7


@pytest.mark.parametrize("media_type", [YAML, JSON])
def test_limits(media_type: str) -> None:
    def read(text: str | bytes) -> Document:
        return read_document(text, media_type)

    room = MAX_BYTES - 2
    assert len(read('"' + "x" * room + '"').data) == room
    for too_large in ('"' + "x" * room + '" ', '"' + "é" * (room // 2) + '"  ', b'"' + b"x" * room + b'" '):
        assert refused(too_large, media_type)[0] == "the document is larger than 256 KiB"
    assert read("[" * MAX_DEPTH + "]" * MAX_DEPTH).data
    told = refused("[\n" * MAX_DEPTH + "{}" + "]" * MAX_DEPTH, media_type)
    assert told == (f"the document is more than {MAX_DEPTH} levels deep", MAX_DEPTH + 1, 1)
    assert len(read("[" + ",".join("1" * (MAX_VALUES - 1)) + "]").data) == MAX_VALUES - 1
    assert (
        refused("[" + ",".join("1" * MAX_VALUES) + "]", media_type)[0]
        == f"the document has more than {MAX_VALUES} values"
    )


def test_aliases_count_for_what_they_repeat() -> None:
    ten = "&a [x,x,x,x,x,x,x,x,x]"
    assert len(yaml(f"[{ten}, {', '.join(['*a'] * 998)}]")) == 999
    assert "values" in refused(f"[{ten}, {', '.join(['*a'] * 1000)}]")[0]
    assert "characters" in refused("[&a " + "x" * 100_000 + ", *a" * 11 + "]")[0]
    names = ", ".join(f"{'x' * 900}{n}: 1" for n in range(100))
    assert "characters" in refused(f"[&a {{{names}}}" + ", *a" * 11 + "]")[0]


PATTERNS = (
    "[",
    "{a: ",
    "- ",
    "? ",
    "[\n",
    "!",
    "&",
    "%a b\n",
    "#x\n",
    "\n",
    " ",
    "- a\n",
    "a\n",
    "'",
    '"',
    "\\",
    "é",
    "😀",
)
MORE_PATTERNS = (
    "1,",
    "[],",
    "{},",
    "{a: 1},",
    '{"a":',
    "- &a 1\n- *a\n",
    "*",
    "|\n",
    "---\n",
    "- !!a x\n",
    ": ",
    "\\u0041",
)


@pytest.mark.parametrize("pattern", [*PATTERNS, *MORE_PATTERNS])
def test_no_text_takes_long(pattern: str) -> None:
    text = pattern * (MAX_BYTES // 4 // len(pattern.encode()))
    for whole, media_type in ((text, YAML), (f"[{text}", YAML), (f'["{text}', YAML), (f"[{text}", JSON)):
        with at_most(1.0), contextlib.suppress(DocumentError):
            read_document(whole, media_type)


plain_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
plain_data = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        plain_text,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(plain_text, inner, max_size=4)),
    max_leaves=12,
)


@given(data=plain_data, ascii_only=st.booleans(), indent=st.sampled_from((None, 2)))
def test_what_json_writes_is_read_back_from_both(data: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(data, ensure_ascii=ascii_only, indent=indent)
    assert repr(read_document(text, JSON).data) == repr(data)
    if ascii_only and indent is None and "\\u007f" not in text and "\x7f" not in text:
        assert repr(read_document(text, YAML).data) == repr(data)


tokens = st.sampled_from([*"[]{}:,-?!&*#|>'\"%@` \n\t\\~.09eExo<", "<<: *a", "&a ", "*a", "\\u", "---\n", "\x85"])


@given(text=st.lists(tokens, max_size=30).map("".join))
def test_no_text_breaks_the_reader(text: str) -> None:
    for media_type in (YAML, JSON):
        try:
            document = read_document(text, media_type)
        except DocumentError as error:
            line, column = error.line, error.column
        else:
            json.dumps(document.data, allow_nan=False)
            line, column = document.locate("/0/a")
        assert min(line, column) >= 1
