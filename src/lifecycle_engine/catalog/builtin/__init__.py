"""The lifecycles that come with the program, each a document beside this file."""

from __future__ import annotations

from importlib import resources


def builtin_documents() -> dict[str, str]:
    """The YAML text of each built-in definition, by the key of its lifecycle, in the order of their keys."""
    files = (file for file in resources.files(__name__).iterdir() if file.name.endswith(".yaml"))
    texts = {file.name.removesuffix(".yaml").replace("_", "-"): file.read_text(encoding="utf-8") for file in files}
    return dict(sorted(texts.items()))
