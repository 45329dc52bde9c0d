"""The command line: `lifecycle-engine serve | migrate | resume | keys | secrets | openapi | asyncapi`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from lifecycle_engine import __version__, key_commands
from lifecycle_engine.log import asyncapi
from lifecycle_engine.outbox.vault import VaultError, generate_master_key
from lifecycle_engine.roles import ROLES, StartError
from lifecycle_engine.roles.parts import log_name, open_vault
from lifecycle_engine.roles.process import serve
from lifecycle_engine.schema import SchemaError, check_schema, migrate
from lifecycle_engine.settings import Settings, SettingsError, load_settings
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.halts import end_halt
from lifecycle_engine.webhook.secrets import reencrypt


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; gives the exit code (0 done, 1 failed, 2 wrong words or settings)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if options.command in _DOCUMENTS:
            return _document(options.command, check=options.check, path=options.file)
        if options.command == "secrets" and options.action == "key":
            print(generate_master_key())
            return 0
        settings = load_settings()
        if options.command == "migrate":
            return asyncio.run(_migrate(settings))
        if options.command == "resume":
            return asyncio.run(_resume(settings))
        if options.command == "secrets":
            return asyncio.run(_reencrypt(settings))
        if options.command == "keys":
            return asyncio.run(_keys(settings, options))
        return serve(settings, options.role)
    except SettingsError as error:
        return _fail(str(error), 2)
    except (SchemaError, VaultError, key_commands.KeyCommandError, StartError) as error:
        return _fail(str(error), 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lifecycle-engine",
        description="Which lifecycle stage each customer is in, since when and why, now and as of any day.",
        epilog="Settings come from the environment or a .env file; the README lists them.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serving = commands.add_parser("serve", help="run the service")
    serving.add_argument(
        "--role", type=_roles, default=ROLES, metavar="ROLE[,ROLE]", help=f"default: {','.join(ROLES)}"
    )
    commands.add_parser("migrate", help="bring the database's schema up to date")
    commands.add_parser("resume", help="let workers go on that a flood of dead letters has stopped")
    key_commands.add_parser(commands)
    secrets = commands.add_parser("secrets", help="make a master key, or bring webhooks' secrets under another one")
    actions = secrets.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("key", help="print a new key for LIFECYCLE_MASTER_KEYS")
    actions.add_parser("reencrypt", help="encrypt all secrets under the first of LIFECYCLE_MASTER_KEYS")
    for name, (title, committed, _) in _DOCUMENTS.items():
        described = commands.add_parser(name, help=f"print the {title} document")
        described.add_argument("--check", action="store_true", help="fail if the committed one differs")
        described.add_argument("--file", type=Path, default=committed, help=f"the committed one (default: {committed})")
    return parser


def _roles(text: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in chosen:
        if name not in ROLES:
            raise argparse.ArgumentTypeError(f"{name!r} is not a role; roles are {', '.join(ROLES)}")
    return chosen


async def _migrate(settings: Settings) -> int:
    database = Database(settings.database_url)
    try:
        await migrate(database)
    except (SQLAlchemyError, OSError) as error:
        return _fail(f"LIFECYCLE_DATABASE_URL: the database cannot be migrated: {_reason(error)}", 1)
    finally:
        await database.close()
    return 0


async def _reencrypt(settings: Settings) -> int:
    vault = open_vault(settings)
    database = Database(settings.database_url)
    try:
        await check_schema(database)
        count = await reencrypt(database, vault)
    except (SQLAlchemyError, OSError) as error:
        return _fail(f"LIFECYCLE_DATABASE_URL: the secrets cannot be read or written: {_reason(error)}", 1)
    finally:
        await database.close()
    print(
        f"{count} secret{'' if count == 1 else 's'} encrypted anew; all are under the master key {vault.key_id!r} now"
    )
    return 0


async def _keys(settings: Settings, options: argparse.Namespace) -> int:
    database = Database(settings.database_url)
    try:
        await check_schema(database)
        await key_commands.run(database, options)
    except (SQLAlchemyError, OSError) as error:
        return _fail(f"LIFECYCLE_DATABASE_URL: the keys cannot be read or written: {_reason(error)}", 1)
    finally:
        await database.close()
    return 0


def _reason(error: BaseException) -> str:
    return str(getattr(error, "orig", error)).splitlines()[0]


async def _resume(settings: Settings) -> int:
    database = Database(settings.database_url)
    try:
        async with database.transaction() as connection:
            stood = await end_halt(connection, log_name(settings))
    except (SQLAlchemyError, OSError) as error:
        return _fail(f"LIFECYCLE_DATABASE_URL: the workers cannot be told: {_reason(error)}", 1)
    finally:
        await database.close()
    print("the workers go on" if stood else "the workers were not stopped")
    return 0


def _openapi() -> dict[str, Any]:
    # Not above: it takes longer to load than all the rest, and a worker has no need of it.
    from lifecycle_engine.api.app import document

    return document()


def _asyncapi() -> dict[str, Any]:
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    return asyncapi.document(__version__, defaults["kafka_topic"], defaults["kafka_partitions"])


_DOCUMENTS: Mapping[str, tuple[str, Path, Callable[[], dict[str, Any]]]] = {
    "openapi": ("OpenAPI", Path("openapi/openapi.json"), _openapi),
    "asyncapi": ("AsyncAPI", Path("openapi/asyncapi.json"), _asyncapi),
}


def _document(name: str, *, check: bool, path: Path) -> int:
    text = json.dumps(_DOCUMENTS[name][2](), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    if not check:
        sys.stdout.write(text)
        return 0
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return 0
    return _fail(f"{path} is not what the program serves; write it anew: lifecycle-engine {name} > {path}", 1)


def _fail(message: str, code: int) -> int:
    print(f"lifecycle-engine: {message}", file=sys.stderr)
    return code
