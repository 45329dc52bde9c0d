"""What roles have in common: each part is built once for the process, when the first role asks for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from lifecycle_engine.engine.definitions import Definitions
from lifecycle_engine.engine.horizon import Horizon
from lifecycle_engine.lifecycle.cel import Cel
from lifecycle_engine.log.database import DatabaseAppender, DatabaseBacklog, DatabaseReader
from lifecycle_engine.log.kafka import KafkaAppender, KafkaBacklog, KafkaReader
from lifecycle_engine.log.port import Appender, Backlog, Positions, Reader
from lifecycle_engine.outbox.vault import Vault, VaultError, keys_of_file, parse_master_keys
from lifecycle_engine.roles import StartError
from lifecycle_engine.settings import Settings
from lifecycle_engine.store.database import Database
from lifecycle_engine.webhook.proxy import Proxy
from lifecycle_engine.webhook.sender import Sender

QUESTION = 5.0
"""Seconds that the database has to answer a question, before whoever asked is told that it does not."""

KAFKA_MARGIN = 1_000_000
"""Microseconds that timers keep behind the clock, for what a broker has stamped and nobody can read yet."""


class Parts:
    """The parts of one process, by its settings. `appended` is set when something was appended to the log here."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.appended = asyncio.Event()
        self.database = Database(settings.database_url, statement_seconds=QUESTION)
        # SQLite has one connection, and it is everybody's.
        self.engine_database = (
            self.database
            if self.database.is_sqlite
            else Database(settings.database_url, pool_size=settings.worker_lanes + 8, by_key_only=True)
        )
        self.loaded: Definitions | None = None
        """The definitions, once a role has asked for them."""
        self._horizon: Horizon | None = None
        self._sender: Sender | None = None
        self._vault: Vault | None = None

    @property
    def quiet(self) -> int:
        """Microseconds for which a customer must have been quiet before a deadline that was past already is told."""
        return self.settings.quiet_seconds * 1_000_000

    def definitions(self) -> Definitions:
        if self.loaded is None:
            self.loaded = Definitions(self.engine_database, Cel())
        return self.loaded

    def horizon(self) -> Horizon:
        """How far time may pass."""
        if self._horizon is None:
            settings, margin = self.settings, 0
            backlog: Backlog = DatabaseBacklog(self.engine_database)
            if settings.kafka_bootstrap_servers:
                # Kafka stamps a record before anyone can read it, by another machine's clock.
                margin = KAFKA_MARGIN
                backlog = KafkaBacklog(
                    settings.kafka_bootstrap_servers, settings.kafka_topic, partitions=settings.kafka_partitions
                )
            self._horizon = Horizon(self.engine_database, backlog, log_name(settings), margin)
        return self._horizon

    def sender(self) -> Sender:
        """What webhooks are sent with."""
        if self._sender is None:
            settings = self.settings
            proxy = None if settings.webhook_proxy is None else Proxy.at(settings.webhook_proxy.get_secret_value())
            self._sender = Sender(settings.webhook_allow_networks, proxy)
        return self._sender

    def vault(self) -> Vault:
        """Raises StartError."""
        if self._vault is None:
            self._vault = open_vault(self.settings)
        return self._vault

    def appender(self) -> Appender:
        settings = self.settings
        if not settings.kafka_bootstrap_servers:
            return DatabaseAppender(self.database, self.appended)
        return KafkaAppender(
            settings.kafka_bootstrap_servers, settings.kafka_topic, partitions=settings.kafka_partitions
        )

    def reader(self, positions: Positions) -> Reader:
        settings = self.settings
        if not settings.kafka_bootstrap_servers:
            return DatabaseReader(self.engine_database, positions, self.appended)
        return KafkaReader(
            settings.kafka_bootstrap_servers,
            settings.kafka_topic,
            settings.kafka_group,
            positions,
            lanes=settings.worker_lanes,
            partitions=settings.kafka_partitions,
        )

    async def close(self) -> None:
        if self._horizon is not None:
            await self._horizon.stop()
        if self._sender is not None:
            await self._sender.close()
        await self.engine_database.close()
        await self.database.close()


def open_vault(settings: Settings) -> Vault:
    """Where webhooks' secrets are kept: under the keys of the settings, or on a laptop of a file beside the database.

    Empty where there is neither. Raises StartError.
    """
    given = "" if settings.master_keys is None else settings.master_keys.get_secret_value().strip()
    if given:
        try:
            return Vault(parse_master_keys(given))
        except ValueError as error:
            raise StartError(f"LIFECYCLE_MASTER_KEYS: {error}") from None
    scheme, _, path = settings.database_url.partition(":///")
    if not scheme.startswith("sqlite"):
        return Vault([])
    try:
        return Vault(keys_of_file(Path(f"{path}.keys")))
    except VaultError as error:
        raise StartError(f"{error}; set LIFECYCLE_MASTER_KEYS, or mend the file") from None


def log_name(settings: Settings) -> str:
    """What the positions of the log are stored under."""
    return settings.kafka_topic if settings.kafka_bootstrap_servers else "database"
