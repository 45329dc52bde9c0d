"""Secrets at rest: encrypted under a master key that the database doesn't have, and that can be replaced.

Each secret is stored with the id of the key it is encrypted under. The first of the configured keys encrypts, all of
them decrypt: put a new one in front, run `lifecycle-engine secrets reencrypt`, and take the old one away.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
_NONCE_BYTES = 12
_ID = re.compile(r"[A-Za-z0-9_-]{1,32}").fullmatch


class VaultError(Exception):
    """A secret cannot be stored, or not be read; the text says why and what to do."""


class MasterKey(NamedTuple):
    """A key of AES-256, and the name that what it encrypts is stored with."""

    id: str
    key: bytes


class Sealed(NamedTuple):
    """An encrypted text: 12 bytes of nonce, then what AES-GCM made of it."""

    key_id: str
    ciphertext: bytes


class Vault:
    """Encrypts and decrypts. Without any key it does neither, and says so."""

    def __init__(self, keys: Sequence[MasterKey]) -> None:
        self._ciphers = {key.id: AESGCM(key.key) for key in keys}
        self._first = keys[0].id if keys else None

    @property
    def is_open(self) -> bool:
        """Whether there is a key to encrypt with."""
        return self._first is not None

    @property
    def key_id(self) -> str:
        """The id of the key that encrypts. Raises VaultError."""
        if self._first is None:
            raise VaultError(
                "secrets cannot be stored without a master key: set LIFECYCLE_MASTER_KEYS to what "
                "`lifecycle-engine secrets key` prints, for the roles api and dispatcher alike"
            )
        return self._first

    def seal(self, text: str, place: str) -> Sealed:
        """Encrypts a text for the place where it is stored; nowhere else it can be decrypted. Raises VaultError."""
        nonce = os.urandom(_NONCE_BYTES)
        return Sealed(self.key_id, nonce + self._ciphers[self.key_id].encrypt(nonce, text.encode(), place.encode()))

    def unseal(self, sealed: Sealed, place: str) -> str:
        """Decrypts what was sealed for a place. Raises VaultError."""
        cipher = self._ciphers.get(sealed.key_id)
        if cipher is None:
            raise VaultError(
                f"a secret is encrypted under the master key {sealed.key_id!r}, which LIFECYCLE_MASTER_KEYS lacks"
            )
        nonce, encrypted = sealed.ciphertext[:_NONCE_BYTES], sealed.ciphertext[_NONCE_BYTES:]
        try:
            return cipher.decrypt(nonce, encrypted, place.encode()).decode()
        except (InvalidTag, ValueError):
            raise VaultError(
                f"a secret cannot be decrypted with the master key {sealed.key_id!r}: the key is another one than the "
                "secret was encrypted with, or the stored secret was changed"
            ) from None


def parse_master_keys(text: str) -> list[MasterKey]:
    """`id:base64,…`, each of 32 bytes; the first one encrypts. Raises ValueError, which never repeats a key."""
    keys: list[MasterKey] = []
    for number, part in enumerate(filter(None, (part.strip() for part in text.split(","))), 1):
        id_, _, encoded = part.partition(":")
        if not _ID(id_) or not encoded:
            raise ValueError(
                f"key {number} must be ID:KEY, where the id has 1 to 32 of A-Z, a-z, 0-9, _ and -; "
                "`lifecycle-engine secrets key` prints one"
            )
        try:
            key = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise ValueError(f"key {number} ({id_}) is not base64; `lifecycle-engine secrets key` prints one") from None
        if len(key) != KEY_BYTES:
            raise ValueError(f"key {number} ({id_}) has {len(key)} bytes, and must have {KEY_BYTES}")
        if any(id_ == other.id for other in keys):
            raise ValueError(f"the key id {id_} is there twice")
        keys.append(MasterKey(id_, key))
    return keys


def generate_master_key() -> str:
    """A new key as the setting has it."""
    return f"k{secrets.token_hex(4)}:{base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}"


def keys_of_file(path: Path) -> list[MasterKey]:
    """The keys in a file that nobody else can read; where it is missing, it is made with one. Raises VaultError."""
    try:
        # Linked to its name once it is whole: whoever else starts now finds all of it, or makes none.
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        if not path.exists():
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(generate_master_key() + "\n")
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(draft, path)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        return parse_master_keys(",".join(path.read_text(encoding="ascii").split()))
    except (OSError, UnicodeDecodeError) as error:
        raise VaultError(f"the file of the master key, {path}, cannot be used: {error}") from None
    except ValueError as error:
        raise VaultError(f"the file of the master key, {path}, holds no master key: {error}") from None
