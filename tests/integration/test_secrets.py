"""Secrets of endpoints in the database: replaced with an overlap, and brought under another master key."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from lifecycle_engine.outbox.vault import Vault, VaultError, generate_master_key, parse_master_keys
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.secrets import drop_expired_secrets
from lifecycle_engine.store.tables import webhook_secret
from lifecycle_engine.webhook.secrets import (
    STEP,
    Keyring,
    TooManySecretsError,
    create_secret,
    reencrypt,
    rotate_secret,
    stored_secrets,
)
from lifecycle_engine.webhook.signing import parse_secret, sign
from tests.record import record

OLD, NEW = generate_master_key(), generate_master_key()
DAY = 86_400_000_000
NOW = 20_000 * DAY


def vault(*keys: str) -> Vault:
    return Vault(parse_master_keys(",".join(keys)))


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    async with record(str(request.getfixturevalue(f"{request.param}_url"))) as started:
        yield started


def signature(*texts: str) -> str:
    return sign(map(parse_secret, texts), "msg_1", 1, b"{}")


async def signed(database: Database, keys: Vault, now: int, endpoint: str = "ep_1") -> str:
    async with database.transaction() as connection:
        found = await stored_secrets(connection, keys, [endpoint, "ep_2"], now)
    return sign((one.secret for one in found[endpoint]), "msg_1", 1, b"{}")


async def test_old_secrets_are_accepted_for_a_while(database: Database) -> None:
    keys = vault(NEW)
    async with database.transaction() as connection:
        first = await create_secret(connection, keys, "ep_1", "v1", NOW)
        pair = await create_secret(connection, keys, "ep_1", "v1a", NOW)
        other = await create_secret(connection, keys, "ep_2", "v1", NOW)
    assert await signed(database, keys, NOW) == signature(first, pair)
    assert await signed(database, keys, NOW, "ep_2") == signature(other)
    async with database.transaction() as connection:
        second = await rotate_secret(connection, keys, "ep_1", "v1", NOW + DAY, DAY)
        third = await rotate_secret(connection, keys, "ep_1", "v1", NOW + DAY, 7 * DAY)
    assert await signed(database, keys, NOW + DAY) == signature(third, second, first, pair)
    # The first one keeps its own end.
    assert await signed(database, keys, NOW + 2 * DAY) == signature(third, second, pair)
    assert await signed(database, keys, NOW + 8 * DAY) == signature(third, pair)
    async with database.transaction() as connection:
        fourth = await rotate_secret(connection, keys, "ep_1", "v1", NOW + 2 * DAY, 0)
        newer = await rotate_secret(connection, keys, "ep_1", "v1a", NOW + 2 * DAY, DAY)
    assert await signed(database, keys, NOW + 2 * DAY) == signature(fourth, newer, pair)
    async with database.transaction() as connection:
        assert await drop_expired_secrets(connection, NOW + 2 * DAY + 1) == 3
        assert await drop_expired_secrets(connection, NOW + 4 * DAY) == 1
    assert await signed(database, keys, NOW + 4 * DAY) == signature(fourth, newer)


async def test_there_are_at_most_five_old_ones(database: Database) -> None:
    keys = vault(NEW)
    async with database.transaction() as connection:
        texts = [await create_secret(connection, keys, "ep_1", "v1", NOW)]
        texts += [await rotate_secret(connection, keys, "ep_1", "v1", NOW, DAY) for _ in range(5)]
    assert await signed(database, keys, NOW) == signature(*reversed(texts))
    with pytest.raises(TooManySecretsError):
        async with database.transaction() as connection:
            await rotate_secret(connection, keys, "ep_1", "v1", NOW, DAY)
    assert await signed(database, keys, NOW) == signature(*reversed(texts))
    async with database.transaction() as connection:
        last = await rotate_secret(connection, keys, "ep_1", "v1", NOW, 0)
    assert await signed(database, keys, NOW) == signature(last)


async def test_a_master_key_is_replaced_while_the_service_runs(database: Database) -> None:
    count = STEP + 2
    texts: dict[str, str] = {}
    async with database.transaction() as connection:
        for number in range(count):
            id_ = f"ep_{number}"
            texts[id_] = await create_secret(connection, vault(OLD), id_, "v1", NOW)
    both = vault(NEW, OLD)
    assert await signed(database, both, NOW) == signature(texts["ep_1"])
    with pytest.raises(VaultError, match="lacks"):
        await reencrypt(database, vault(NEW))
    assert await reencrypt(database, both) == count
    assert await reencrypt(database, both) == 0
    async with database.transaction() as connection:
        found = await stored_secrets(connection, vault(NEW), texts, NOW)
        rows = (await connection.execute(select(webhook_secret))).all()
    assert {id_: sign([one.secret for one in of_it], "m", 1, b"") for id_, of_it in found.items()} == {
        id_: sign([parse_secret(text)], "m", 1, b"") for id_, text in texts.items()
    }
    assert {row.key_id for row in rows} == {NEW.partition(":")[0]}
    assert not any(text.encode() in row.ciphertext for row in rows for text in texts.values())


async def test_whose_secrets_cannot_be_read_is_left_out(database: Database) -> None:
    async with database.transaction() as connection:
        text = await create_secret(connection, vault(OLD), "ep_1", "v1", NOW)
        await create_secret(connection, vault(OLD), "ep_2", "v1", NOW)
        await rotate_secret(connection, vault(NEW), "ep_2", "v1", NOW, DAY)
        third = await create_secret(connection, vault(NEW), "ep_3", "v1", NOW)
    keyring, both = Keyring(vault(NEW)), Keyring(vault(OLD, NEW))
    async with database.transaction() as connection:
        for _ in range(2):
            found = await keyring(connection, ["ep_1", "ep_2", "ep_3", "ep_4"], NOW)
            assert found.keys() == {"ep_3"}
            assert sign(found["ep_3"], "msg_1", 1, b"{}") == signature(third)
            found = await both(connection, ["ep_1", "ep_2"], NOW)
            assert sign(found["ep_1"], "msg_1", 1, b"{}") == signature(text)
            assert len(found["ep_2"]) == 2


async def test_a_secret_cannot_be_moved_to_another_endpoint(database: Database) -> None:
    async with database.transaction() as connection:
        await create_secret(connection, vault(NEW), "ep_1", "v1", NOW)
        await connection.execute(webhook_secret.update().values(endpoint="ep_2"))
        with pytest.raises(VaultError, match="cannot be decrypted"):
            await stored_secrets(connection, vault(NEW), ["ep_2"], NOW)


def run(folder: Path, *words: str, **settings: str) -> tuple[int, str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIFECYCLE_")}
    done = subprocess.run(
        [sys.executable, "-m", "lifecycle_engine", *words],
        cwd=folder, env={**environment, **settings}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_the_command_line_makes_keys_and_encrypts_anew(tmp_path: Path) -> None:
    code, key, _ = run(tmp_path, "secrets", "key")
    assert (code, len(parse_master_keys(key))) == (0, 1)
    id_ = key.partition(":")[0]
    code, _, error = run(tmp_path, "secrets", "reencrypt", LIFECYCLE_MASTER_KEYS=key)
    assert code == 1
    assert "migrate" in error
    assert run(tmp_path, "migrate")[0] == 0
    code, said, _ = run(tmp_path, "secrets", "reencrypt", LIFECYCLE_MASTER_KEYS=key)
    assert (code, said) == (0, f"0 secrets encrypted anew; all are under the master key '{id_}' now\n")
    assert not (tmp_path / "lifecycle.db.keys").exists()
    # Without the setting, the keys of a laptop are in a file.
    code, said, _ = run(tmp_path, "secrets", "reencrypt")
    kept = (tmp_path / "lifecycle.db.keys").read_text()
    assert (code, said.count(kept.partition(":")[0])) == (0, 1)
    code, _, error = run(tmp_path, "secrets", "reencrypt", LIFECYCLE_MASTER_KEYS="a:b")
    assert code == 1
    assert error.startswith("lifecycle-engine: LIFECYCLE_MASTER_KEYS: key 1 (a) is not base64")
    assert "Traceback" not in error
