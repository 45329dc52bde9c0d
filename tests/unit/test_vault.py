"""Secrets at rest: under which key, where, and when the key is another one."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lifecycle_engine.outbox.vault import Vault, VaultError, generate_master_key, keys_of_file, parse_master_keys

PLACE = "ep_1/sec_1"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def keys(*texts: str) -> Vault:
    return Vault(parse_master_keys(",".join(texts)))


def test_what_is_sealed_can_be_unsealed_at_its_place_only() -> None:
    vault = keys(generate_master_key())
    sealed, again = vault.seal(SECRET, PLACE), vault.seal(SECRET, PLACE)
    assert vault.unseal(sealed, PLACE) == SECRET
    assert SECRET.encode() not in sealed.ciphertext
    assert sealed.ciphertext != again.ciphertext
    with pytest.raises(VaultError, match="cannot be decrypted"):
        vault.unseal(sealed, "ep_2/sec_1")
    for place in range(len(sealed.ciphertext)):
        changed = bytearray(sealed.ciphertext)
        changed[place] ^= 1
        with pytest.raises(VaultError, match="cannot be decrypted"):
            vault.unseal(sealed._replace(ciphertext=bytes(changed)), PLACE)
    for length in (0, 5, 12, 20):
        with pytest.raises(VaultError, match="cannot be decrypted"):
            vault.unseal(sealed._replace(ciphertext=sealed.ciphertext[:length]), PLACE)


def test_a_master_key_can_be_replaced() -> None:
    old, new = generate_master_key(), generate_master_key()
    sealed = keys(old).seal(SECRET, PLACE)
    both = keys(new, old)
    assert both.unseal(sealed, PLACE) == SECRET
    moved = both.seal(both.unseal(sealed, PLACE), PLACE)
    assert moved.key_id == both.key_id == new.partition(":")[0]
    assert keys(new).unseal(moved, PLACE) == SECRET
    with pytest.raises(VaultError, match=f"under the master key '{sealed.key_id}', which LIFECYCLE_MASTER_KEYS lacks"):
        keys(new).unseal(sealed, PLACE)
    impostor = new.partition(":")[0] + ":" + old.partition(":")[2]
    with pytest.raises(VaultError, match="the key is another one"):
        keys(impostor).unseal(moved, PLACE)


def test_without_a_key_nothing_is_stored() -> None:
    vault = Vault([])
    assert not vault.is_open
    with pytest.raises(VaultError, match="set LIFECYCLE_MASTER_KEYS"):
        vault.seal(SECRET, PLACE)
    with pytest.raises(VaultError, match="lacks"):
        vault.unseal(keys(generate_master_key()).seal(SECRET, PLACE), PLACE)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "key 1 must be ID:KEY"),
        ("k 1:QUFB", "key 1 must be ID:KEY"),
        (f"a:{'A' * 43}=,b:%%", r"key 2 \(b\) is not base64"),
        ("a:QUFB", r"key 1 \(a\) has 3 bytes, and must have 32"),
        (f"a:{'A' * 43}=, a:{'B' * 43}=", "the key id a is there twice"),
    ],
)
def test_what_is_no_master_key_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_master_keys(text)


def test_several_may_be_given_with_spaces() -> None:
    assert [key.id for key in parse_master_keys(f" a:{'A' * 43}= ,\nb:{'B' * 43}=, ")] == ["a", "b"]
    assert parse_master_keys("") == []


def test_the_file_is_made_once_and_for_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "lifecycle.db.keys"
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: keys_of_file(path), range(8)))
    assert all(one == found[0] for one in found)
    assert keys_of_file(path) == found[0]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    second = generate_master_key()
    path.write_text(second + "\n" + path.read_text())
    assert [key.id for key in keys_of_file(path)] == [second.partition(":")[0], found[0][0].id]


def test_a_file_that_is_none_says_so(tmp_path: Path) -> None:
    path = tmp_path / "lifecycle.db.keys"
    path.write_text("hello")
    with pytest.raises(VaultError, match="holds no master key: key 1 must be"):
        keys_of_file(path)
    with pytest.raises(VaultError, match="cannot be used"):
        keys_of_file(tmp_path / "nowhere" / "lifecycle.db.keys")
