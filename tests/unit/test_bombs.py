"""Documents that are meant to break whoever reads them: each is refused within a second, and told why."""

from __future__ import annotations

import json
import random
import string
from typing import Any

import pytest

from lifecycle_engine.catalog.documents import DocumentError, read_document
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.checks import review
from tests.unit.stopwatch import at_most

HEAD = "lifecycle: bomb\ninitial: a\nstages: [{key: a}, {key: b}]\n"
RND = random.Random(1)


def guarded(source: str) -> str:
    return f"{HEAD}rules:\n  - {{on: x, when: [{json.dumps(source, ensure_ascii=False)}], to: b}}\n"


def nested(source: str, inner: str, depth: int) -> str:
    for _ in range(depth):
        inner = source.replace("…", inner)
    return inner


def aliases(levels: int) -> str:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    return HEAD + text + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, levels))


LOOP = "[1, 2, 3, 4, 5, 6, 7, 8, 9].all(a, …)"
BOMBS: dict[str, tuple[str, str, str]] = {
    "macros in macros": (guarded(nested(LOOP, "a > 0", 8)), "/rules/0/when/0", "go through a list or a map once"),
    "an expression of 100 KB": (guarded("1 < 2 || " * 11_000 + "true"), "/rules/0/when/0", "at most 2048 bytes"),
    "a text of 100 KB": (guarded(f"event.type == '{'x' * 100_000}'"), "/rules/0/when/0", "at most 2048 bytes"),
    "a list of 100 KB": (guarded(f"event.type in {['x'] * 20_000}"), "/rules/0/when/0", "at most 2048 bytes"),
    "parentheses": (guarded("(" * 1000 + "true" + ")" * 1000), "/rules/0/when/0", "at most 32 levels of recursion"),
    "brackets": (guarded("[" * 1000 + "]" * 1000 + " == []"), "/rules/0/when/0", "at most 32 levels of recursion"),
    "choices": (guarded("has(traits.a) ? true : " * 80 + "true"), "/rules/0/when/0", "recursion"),
    "negations": (guarded("!" * 2000 + "true"), "/rules/0/when/0", "always holds"),
    "repetitions of repetitions": (
        guarded(f"event.type.matches('{nested('(…){100}', 'a', 6)}')"),
        "/rules/0/when/0",
        "invalid regular expression",
    ),
    "10,000 rules": (HEAD + "rules:\n" + "  - {on: x, to: b}\n" * 10_000, "", "more than 10000 values"),
    "10,000 rules, repeated": (
        f"{HEAD}rule: &r {{on: x, to: b}}\nrules: [{', '.join(['*r'] * 10_000)}]\n",
        "",
        "more than 10000 values",
    ),
    "3,000 rules": (HEAD + "rules:\n" + "  - {on: x, to: b}\n" * 3_000, "/rules", "has 3000 items; at most 500"),
    "10,000 stages": (
        "lifecycle: bomb\ninitial: s0\nstages: [" + "".join(f"{{key: s{n}}}, " for n in range(10_000)) + "]\n",
        "",
        "more than 10000 values",
    ),
    "4,000 stages": (
        "lifecycle: bomb\ninitial: s0\nstages: [" + "".join(f"{{key: s{n}}}, " for n in range(4_000)) + "]\n",
        "/stages",
        "has 4000 items; at most 100",
    ),
    "9,000 renamed stages": (
        HEAD + "rename:\n" + "".join(f"  s{n}: c\n" for n in range(9_000)),
        "/rename/s0",
        "there is no stage 'c'",
    ),
    "a stage __class__": (HEAD.replace("key: b", "key: __class__"), "/stages/1/key", "'__class__' is not of the form"),
    "a measure __init__": (HEAD + "measures: {__init__: {count: x}}\n", "/measures/__init__", "is not of the form"),
    "a name __class__": (guarded("event.__class__ == 1"), "/rules/0/when/0", "undeclared reference"),
    "a call of __import__": (guarded("__import__('os') == 1"), "/rules/0/when/0", "undeclared reference"),
    "a deep list": (HEAD + "rules: " + "[" * 100_000, "", "more than 32 levels deep"),
    "a deep map": ("".join(" " * n + "a:\n" for n in range(600)), "", "more than 32 levels deep"),
    "aliases of aliases": (aliases(9), "", "more than 10000 values"),
    "an alias of itself": (f"{HEAD}rules: &r [*r]\n", "", "stands within what it repeats"),
    "a long text, repeated": (
        f"{HEAD}a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 9_000)}]\n",
        "",
        "written out, the document has more than",
    ),
    "a Python object": (HEAD + "rules: !!python/object/apply:os.system [ls]\n", "", "tags such as"),
    "1 MB of nonsense": ("".join(RND.choices(string.printable, k=1_000_000)), "", "larger than 256 KiB"),
    "200 KB of nonsense": ("".join(RND.choices(string.printable, k=200_000)), "", ""),
    "200 KB of letters": ("".join(RND.choices(string.ascii_letters + " \n", k=200_000)), "", ""),
    "200 KB of digits": (f"{HEAD}rules: {'9' * 200_000}\n", "", "does not fit into 64 bits"),
    "nothing": ("", "", "the document is empty"),
    "NUL": ("\0" * 1000, "", ""),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_at_once(name: str) -> None:
    text, pointer, message = BOMBS[name]
    with at_most(1.0):
        found = mistakes(text, "application/yaml")
    assert any(at == pointer and message in told for at, told in found.items()), found
    assert all(len(told) < 500 for told in found.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"rules": ' + "[" * 100_000, "more than 32 levels deep"),
        ('{"rules": [' + '{"on": "x", "to": "b"}, ' * 9_000, "more than 10000 values"),
        ('{"rules": ' + "9" * 200_000 + "}", "does not fit into 64 bits"),
        ('{"rules": 1e' + "9" * 200_000 + "}", "is beyond a double"),
        ('"' + "\\ud83d" * 30_000 + '"', "half a surrogate pair"),
        ("".join(RND.choices(string.printable, k=200_000)), "not JSON"),
    ],
    ids=["deep", "rules", "digits", "exponent", "surrogates", "nonsense"],
)
def test_bombs_in_json_are_refused_at_once(text: str, message: str) -> None:
    with at_most(1.0):
        found = mistakes(text, "application/json")
    assert message in found[""]


def mistakes(text: str, media_type: str) -> dict[str, Any]:
    try:
        document = read_document(text, media_type)
    except DocumentError as error:
        return {"": error.message}
    found = review(document.data, Cel())
    assert found.definition is None
    return {problem.pointer: problem.message for problem in found.errors}
