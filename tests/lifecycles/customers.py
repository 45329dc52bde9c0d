"""The worked customers of the built-in lifecycles: one file each, `KEY.yaml`, of the form of the worked examples.

Everything that plays or shows a worked customer reads it here. Its history is at rest by `now`: whatever the clock says
later, no timer and no window changes it any more.
"""

from __future__ import annotations

from pathlib import Path

from lifecycle_engine.catalog.builtin import builtin_documents
from lifecycle_engine.catalog.documents import read_document
from tests.conformance.examples import Case, read_case


def _customer(key: str, definition: str) -> Case:
    customer = read_document(Path(__file__).with_name(f"{key}.yaml").read_text(encoding="utf-8"), "application/yaml")
    return read_case(
        {**customer.data, "name": key, "definition": read_document(definition, "application/yaml").data},
    )


CUSTOMERS = {key: _customer(key, definition) for key, definition in builtin_documents().items()}
"""By the lifecycle's key."""
