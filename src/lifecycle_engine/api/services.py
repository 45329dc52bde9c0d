"""What the routes work with, put together by whoever starts the application."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lifecycle_engine.api.door.load import Load
from lifecycle_engine.api.health import Health
from lifecycle_engine.api.keys.authentication import Keys
from lifecycle_engine.api.touchpoints.progress import Progress
from lifecycle_engine.engine.definitions import Definitions
from lifecycle_engine.ingest.formats.event_types import EventTypes, default_event_types
from lifecycle_engine.ingest.intake import Intake
from lifecycle_engine.log.port import Appender
from lifecycle_engine.outbox.vault import Vault
from lifecycle_engine.store.database import Database
from lifecycle_engine.webhook.sender import Sender


@dataclass(frozen=True)
class Services:
    """`clock` gives microseconds since the epoch, `log` names the positions' rows.

    `webhook_retention` is for how long it can be read what was sent, in microseconds.
    """

    appender: Appender
    intake: Intake
    keys: Keys
    database: Database
    definitions: Definitions
    health: Health
    log: str
    clock: Callable[[], int]
    vault: Vault
    sender: Sender
    webhook_retention: int
    event_types: EventTypes = field(default_factory=default_event_types)
    progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "progress", Progress(self.database, self.log))

    load: Load = field(default_factory=Load)
