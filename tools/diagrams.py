"""Draw the diagrams of the built-in lifecycles into their pages, `docs/lifecycles/*.md`.

`--check` writes nothing and ends with 1 if a page is not what it should be.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from lifecycle_engine.catalog.builtin import builtin_documents
from lifecycle_engine.catalog.documents import read_document
from lifecycle_engine.diagrams.mermaid import mermaid
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.lifecycle.definitions import compile_definition
from lifecycle_engine.lifecycle.labels import ENGLISH

PAGES = Path(__file__).parents[1] / "docs" / "lifecycles"
_BLOCK = re.compile(r"(?<=<!-- diagram -->\n).*?(?=<!-- /diagram -->\n)", re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.diagrams", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say whether the pages are up to date")
    arguments = parser.parse_args()
    return draw(PAGES, check=arguments.check)


def draw(pages: Path, *, check: bool) -> int:
    """Writes, or only checks, the page of each built-in lifecycle. 1 if something is left to be done."""
    code = 0
    for key, document in builtin_documents().items():
        page = pages / f"{key}.md"
        text = page.read_text(encoding="utf-8") if page.exists() else ""
        found = list(_BLOCK.finditer(text))
        if len(found) != 1:
            print(f"error: {page} must have one <!-- diagram --> … <!-- /diagram -->, each on a line", file=sys.stderr)
            code = 1
            continue
        drawn = text[: found[0].start()] + _diagram(document) + text[found[0].end() :]
        if drawn == text:
            continue
        if check:
            print(f"error: {page} shows another diagram: run `python -m tools.diagrams`", file=sys.stderr)
            code = 1
        else:
            page.write_text(drawn, encoding="utf-8")
    return code


def _diagram(document: str) -> str:
    definition = compile_definition(read_document(document, "application/yaml").data, Cel())
    return f"```mermaid\n{mermaid(definition, ENGLISH)}```\n"


if __name__ == "__main__":
    sys.exit(main())
