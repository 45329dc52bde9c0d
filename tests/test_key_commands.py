"""`lifecycle-engine keys …` beside a running service, which is another process: who has no key yet makes one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from lifecycle_engine.cli import main
from tests.processes import Service, settings_for


async def test_keys_are_made_listed_rotated_and_revoked_beside_a_running_service(
    installed_sqlite_url: str, tmp_path: Path
) -> None:
    settings = settings_for(installed_sqlite_url)

    def call(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "lifecycle_engine", "keys", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"LIFECYCLE_DATABASE_URL": installed_sqlite_url},
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr

    async def keys(*arguments: str) -> str:
        code, output, errors = await asyncio.to_thread(call, *arguments)
        assert code == 0, errors
        return output.strip()

    async with Service(["api"], settings, tmp_path) as api, api.client() as client:

        async def asked(key: str) -> httpx.Response:
            return await client.get("/v1/lifecycles", headers={"Authorization": f"Bearer {key}"})

        async def until(key: str, status: int) -> None:
            async with asyncio.timeout(5):
                while (await asked(key)).status_code != status:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

        key = await keys("create", "--name", "desk \x1b[2J", "--source", "till", "--scopes", "lifecycles:read")
        id_ = key[3:11]
        await until(key, 200)
        await until(await keys("rotate", id_, "--grace", "600"), 200)
        await until(key, 200)
        await keys("revoke", id_)
        await until(key, 401)

    listed = await keys("list")
    new, old = listed.splitlines()[1:]
    assert [line.split()[1] for line in (new, old)] == ["active", "revoked"]
    assert old.startswith(id_)
    assert "'till'" in new
    assert "\x1b" not in listed
    assert key not in listed


def test_what_cannot_be_done_is_told(
    empty_sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIFECYCLE_DATABASE_URL", empty_sqlite_url)

    def call(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(["keys", *arguments])
        except SystemExit as ended:
            code = int(str(ended.code))
        return code, *capsys.readouterr()

    code, _, told = call("list")
    assert (code, "run: lifecycle-engine migrate" in told) == (1, True)
    assert main(["migrate"]) == 0
    code, key, _ = call("create", "--name", "x", "--scopes", "admin")
    assert code == 0
    id_ = key[3:11]
    assert call("revoke", id_)[0] == 0
    for arguments, expected, words in (
        (("revoke", "00000000"), 1, "there is no key '00000000'"),
        (("rotate", id_), 1, "is revoked"),
        (("create", "--name", "x", "--scopes", "ingest:read"), 2, "'ingest:read' is no scope"),
        (("create", "--name", "x", "--scopes", "admin", "--expires-at", "tomorrow"), 2, "RFC 3339"),
        (("create", "--name", "x", "--scopes", "admin", "--expires-at", "2001-01-01T00:00:00Z"), 1, "in the future"),
        (("create", "--name", "x", "--scopes", "admin", "--rate-limit", "fast"), 2, "REQUESTS/SECONDS"),
        (("create", "--name", "", "--scopes", "admin"), 2, "1 to 128 characters"),
        (("rotate", id_, "--grace", "604801"), 2, "0 to 604800 seconds"),
    ):
        code, output, told = call(*arguments)
        assert (code, output) == (expected, ""), arguments
        assert words in told, arguments
