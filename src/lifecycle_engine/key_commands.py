"""`lifecycle-engine keys …`: straight on the database, for whoever has no key yet.

A running service takes notice within 2 s. The text of a new key goes to standard output, all else to standard error,
so that `KEY=$(lifecycle-engine keys create …)` does.
"""

from __future__ import annotations

import argparse
import sys
import time

from lifecycle_engine.api.keys.issuance import (
    DEFAULT_GRACE,
    MAX_GRACE,
    IssuedKey,
    KeyStateError,
    issue_key,
    revoke,
    rotate_key,
    status_of,
)
from lifecycle_engine.api.keys.rates import Rate, parse_rate
from lifecycle_engine.api.keys.scopes import ADMIN, SCOPES
from lifecycle_engine.lifecycle.instants import format_instant, parse_instant
from lifecycle_engine.store.database import Database
from lifecycle_engine.store.keys import KeyRow, find_key, newest_keys

_STEP = 250


class KeyCommandError(Exception):
    """The command cannot be done; the text says why."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command `keys` and its actions."""
    keys = commands.add_parser("keys", help="make, list, rotate and revoke API keys, straight on the database")
    actions = keys.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a key and print it, this once")
    create.add_argument("--name", required=True, type=_label, help="for people: who has it, and for what")
    create.add_argument("--source", type=_label, help="of what is posted with it (default: the name)")
    create.add_argument(
        "--scopes", required=True, type=_scopes, metavar="SCOPE[,SCOPE]", help=f"of {', '.join((ADMIN, *SCOPES))}"
    )
    create.add_argument("--expires-at", type=_instant, metavar="INSTANT", help="RFC 3339 (default: never)")
    create.add_argument(
        "--rate-limit", type=_rate, metavar="REQUESTS/SECONDS", help="such as 600/60 (default: what the settings say)"
    )
    actions.add_parser("list", help="list all keys, the newest first")
    rotate = actions.add_parser("rotate", help="put a new key in the place of one, and print it, this once")
    rotate.add_argument("id", help="the eight characters of the key after le_")
    rotate.add_argument(
        "--grace",
        type=_grace,
        default=DEFAULT_GRACE,
        metavar="SECONDS",
        help=f"until the old one expires ({MAX_GRACE} at most)",
    )
    revoking = actions.add_parser("revoke", help="revoke a key, at once and for good")
    revoking.add_argument("id", help="the eight characters of the key after le_")


async def run(database: Database, options: argparse.Namespace) -> None:
    """Does what the command line says. Raises KeyCommandError, SQLAlchemyError, OSError."""
    now = time.time_ns() // 1000
    if options.action == "list":
        return await _list(database, now)
    async with database.transaction() as connection:
        if options.action == "create":
            if options.expires_at is not None and options.expires_at <= now:
                raise KeyCommandError("--expires-at must lie in the future")
            issued = await issue_key(
                connection,
                now,
                name=options.name,
                source=options.source,
                scopes=options.scopes,
                expires_at=options.expires_at,
                rate=options.rate_limit,
            )
        elif options.action == "rotate":
            row = await find_key(connection, options.id, lock=True)
            if row is None:
                raise _unknown(options.id)
            try:
                issued = await rotate_key(connection, row, now, options.grace)
            except KeyStateError as error:
                raise KeyCommandError(str(error)) from None
        else:
            if await revoke(connection, options.id, now) is None:
                raise _unknown(options.id)
            issued = None
    if issued is None:
        print(f"The key {options.id} is revoked; running services refuse it within 5 s.", file=sys.stderr)
    else:
        _show(issued)
    return None


async def _list(database: Database, now: int) -> None:
    before: tuple[int, str] | None = None
    print(f"{'id':<10}{'status':<9}{'last used':<22}{'expires':<22}{'source':<20} name: scopes")
    while True:
        async with database.transaction() as connection:
            rows = await newest_keys(connection, before, _STEP)
        for row in rows:
            print(_line(row, now))
        if len(rows) < _STEP:
            return
        before = (rows[-1].created_at, rows[-1].id)


def _line(row: KeyRow, now: int) -> str:
    last = "never" if row.last_used_at is None else format_instant(row.last_used_at)[:19] + "Z"
    ends = "never" if row.expires_at is None else format_instant(row.expires_at)[:19] + "Z"
    scopes = ",".join(sorted(row.scopes))
    return f"{row.id:<10}{status_of(row, now):<9}{last:<22}{ends:<22}{row.source!r:<20} {row.name!r}: {scopes}"


def _show(issued: IssuedKey) -> None:
    row = issued.row
    what = f"The key {row.id} posts for the source {row.source!r}; it is shown this once:"
    print(what, file=sys.stderr)
    print(issued.text)


def _unknown(id_: str) -> KeyCommandError:
    return KeyCommandError(f"there is no key {id_!r}; `lifecycle-engine keys list` shows all")


def _scopes(text: str) -> frozenset[str]:
    chosen = frozenset(scope.strip() for scope in text.split(","))
    for scope in sorted(chosen):
        if scope not in SCOPES and scope != ADMIN:
            raise argparse.ArgumentTypeError(f"{scope!r} is no scope; there are {', '.join((ADMIN, *SCOPES))}")
    return chosen


def _label(text: str) -> str:
    if not 1 <= len(text) <= 128:
        raise argparse.ArgumentTypeError("must have 1 to 128 characters")
    return text


def _instant(text: str) -> int:
    try:
        return parse_instant(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _rate(text: str) -> Rate | None:
    try:
        return parse_rate(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _grace(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > MAX_GRACE:
        raise argparse.ArgumentTypeError(f"must be 0 to {MAX_GRACE} seconds")
    return int(text)
