"""The fold's state as bytes, and back.

A state is derived: bytes of another format are as good as none, and the customer is folded anew. The last sequences are
not derived, so they are kept apart from it, in a format that stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from lifecycle_engine.lifecycle.journeys import CustomerState
from lifecycle_engine.lifecycle.windows import Window

FORMAT = b"\x02"
"""The first byte. Raise it whenever CustomerState or the meaning of anything in it changes.

A migration then raises `definition_set.number` too, so that quiet customers are folded anew and their timers go on.
"""

Sequences = dict[str, dict[str | None, int]]
"""Lifecycle -> subject -> the last sequence given to a change of that journey."""


class Told(NamedTuple):
    """A timer that others were told of beforehand: when it is due, by which version, and what it would do."""

    due: int
    version: int
    stage: str
    to: str


Announced = dict[str, dict[str | None, dict[int, Told]]]
"""Lifecycle -> subject -> rule -> what was announced of it."""


def _plain(total: Any) -> Any:
    if isinstance(total, Window):
        return total.plain
    raise NotImplementedError(f"nothing carries {type(total).__name__}")


_encode = msgspec.msgpack.Encoder(enc_hook=_plain).encode
_decode_state = msgspec.msgpack.Decoder(CustomerState).decode
_decode_sequences = msgspec.msgpack.Decoder(Sequences).decode
_decode_announced = msgspec.msgpack.Decoder(Announced).decode


def encode_state(state: CustomerState) -> bytes:
    return FORMAT + _encode(state)


def decode_state(data: bytes | None) -> CustomerState | None:
    """None where there is no state yet, or one of another format."""
    if data is None or data[:1] != FORMAT:
        return None
    return _decode_state(memoryview(data)[1:])


def encode_sequences(sequences: Mapping[str, Mapping[str | None, int]]) -> bytes:
    return _encode(sequences)


def decode_sequences(data: bytes | None) -> Sequences:
    return _decode_sequences(data) if data else {}


def encode_announced(announced: Announced) -> bytes | None:
    """None where there is nothing to remember."""
    return _encode(announced) if announced else None


def decode_announced(data: bytes | None) -> Announced:
    return _decode_announced(data) if data else {}
