"""The OpenAPI document, made without a running service."""
from typing import Any
def document() -> dict[str, Any]:
    raise NotImplementedError
