"""The settings: read once from the environment (or a `.env` file), checked before anything starts."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

PREFIX = "LIFECYCLE_"
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")
TEST_PREFIX = "LIFECYCLE_TEST_"
"""Names that only the test suite reads; the program lets them pass."""


class SettingsError(ValueError):
    """A setting that is unknown or wrong; the text is one line that names it."""


class Settings(BaseSettings):
    """All settings, each under its name in capitals with the prefix `LIFECYCLE_`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=False)

    database_url: str = Field(
        "sqlite+aiosqlite:///lifecycle.db", description="sqlite+aiosqlite:///FILE or postgresql+asyncpg://…"
    )
    kafka_bootstrap_servers: str = Field("", description="host:port,…; empty: the log is a table of the database")
    kafka_topic: str = Field("lifecycle.touchpoints", pattern=r"^[A-Za-z0-9._-]{1,200}$")
    kafka_partitions: int = Field(4, ge=1, le=1000, description="used when the topic has to be created")
    kafka_group: str = Field("lifecycle-engine", pattern=r"^[A-Za-z0-9._-]{1,200}$")
    listen: str = Field("127.0.0.1:8000", description="HOST:PORT")
    health_listen: str = Field("", description="HOST:PORT for /livez and /readyz of a process without the role api")
    api_key: SecretStr | None = Field(None, description="a first key with every scope")
    rate_limit: str = Field(
        "", description="REQUESTS/SECONDS that a key may make that has no rate of its own; empty: as many as it likes"
    )
    max_in_flight: int = Field(1000, ge=1, le=100_000, description="requests that are worked on at a time")
    max_body_memory_mib: int = Field(
        256, ge=16, le=65_536, description="MiB of bodies of requests that are held at a time"
    )
    max_connections: int = Field(2000, ge=1, le=1_000_000, description="connections that are open at a time")
    keep_alive_seconds: int = Field(65, ge=1, le=3600, description="how long a connection may be idle between requests")
    worker_lanes: int = Field(2, ge=1, le=16, description="transactions that one worker process has open at a time")
    future_skew_seconds: int = Field(300, ge=0, le=86_400, description="how far ahead of the clock a touchpoint may be")
    event_types: str = Field("", description="a YAML or JSON file, or the table itself: other systems' events")
    dead_letter_limit: int = Field(
        100,
        ge=1,
        le=1_000_000,
        description="how many records the workers set aside before they stop, if few others are fine",
    )
    quiet_seconds: int = Field(
        5,
        ge=0,
        le=86_400,
        description="how long a customer is quiet before a timer fires that was late when it was set",
    )
    master_keys: SecretStr | None = Field(
        None, description="ID:KEY,…, each of 32 bytes in base64: the first encrypts webhooks' secrets, all decrypt"
    )
    webhook_concurrency: int = Field(
        200, ge=1, le=10_000, description="attempts at deliveries that one dispatcher process makes at a time"
    )
    webhook_retention_days: int = Field(
        30, ge=1, le=3650, description="for how long it can be read what was sent and what was answered"
    )
    webhook_allow_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        (), description="NETWORK/BITS,…: where webhooks may go though it is private, over http and to any port"
    )
    webhook_proxy: SecretStr | None = Field(
        None, description="http://[USER:PASSWORD@]HOST:PORT, through which webhooks leave for all other networks"
    )

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        scheme, _, rest = value.partition("://")
        if scheme in ("postgresql+asyncpg", "postgresql", "postgres"):
            return _postgresql(f"postgresql+asyncpg://{rest}")
        if scheme not in ("sqlite+aiosqlite", "sqlite"):
            raise ValueError("must begin with sqlite+aiosqlite:// or postgresql+asyncpg://")
        if "?" in rest:
            raise ValueError("a SQLite file takes no parameters (?…)")
        folder = Path(rest.removeprefix("/")).parent
        if not rest.startswith("/") or rest in ("/", "/:memory:"):
            raise ValueError("must name a file, such as sqlite+aiosqlite:///lifecycle.db")
        if not folder.is_dir():
            raise ValueError(f"the folder {folder} does not exist")
        return f"sqlite+aiosqlite://{rest}"

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def _servers(cls, value: str) -> str:
        if value and not all(_ADDRESS.fullmatch(server.strip()) for server in value.split(",")):
            raise ValueError("must be HOST:PORT, or several of them separated by commas")
        return value

    @field_validator("webhook_allow_networks", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return tuple(ip_network(network.strip()) for network in value.split(",")) if value else ()
        except ValueError as error:
            raise ValueError(f"must be networks such as 10.1.0.0/16, separated by commas: {error}") from None

    @field_validator("webhook_proxy")
    @classmethod
    def _proxy(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value():
            return None
        try:
            parts = urlsplit(value.get_secret_value())
            right = parts.scheme == "http" and parts.hostname and parts.port and parts.path in ("", "/")
        except ValueError:
            right = False
        if not right:
            raise ValueError("must be of the form http://[USER:PASSWORD@]HOST:PORT")
        return value

    @field_validator("listen", "health_listen")
    @classmethod
    def _host_and_port(cls, value: str, info: ValidationInfo) -> str:
        if not value and info.field_name == "health_listen":
            return value
        host, _, port = value.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError("must be HOST:PORT, such as 127.0.0.1:8000")
        return value

    @field_validator("rate_limit")
    @classmethod
    def _written_rate(cls, value: str) -> str:
        if value and not re.fullmatch(r"[1-9][0-9]{0,8}/[1-9][0-9]{0,4}", value):
            raise ValueError("must be REQUESTS/SECONDS, such as 6000/60, or empty")
        return value

    @field_validator("api_key")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value():
            return None
        if not re.fullmatch(r"[!-~]{16,256}", value.get_secret_value()):
            raise ValueError("must have 16 to 256 ASCII characters, and no space")
        return value


def load_settings(environment: Mapping[str, str] | None = None, env_file: Path = Path(".env")) -> Settings:
    """Reads and checks the settings; SettingsError names the first that is unknown or wrong.

    A value of the environment goes before one of the file.
    """
    given = {**_env_file(env_file), **(os.environ if environment is None else environment)}
    ours = {name: value for name, value in given.items() if name.startswith(PREFIX)}
    known = {PREFIX + name.upper(): name for name in Settings.model_fields}
    names = [name.removeprefix(PREFIX) for name in known]
    for name in sorted(ours):
        if name not in known and not name.startswith(TEST_PREFIX):
            close = [PREFIX + word for word in difflib.get_close_matches(name[len(PREFIX) :], names, 1)]
            meant = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"
            raise SettingsError(f"{name} is not a setting; {meant}")
    try:
        return Settings.model_validate({known[name]: value for name, value in ours.items() if name in known})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = PREFIX + str(first["loc"][0]).upper()
        raise SettingsError(f"{name}: {first['msg'].removeprefix('Value error, ')}") from None


def _postgresql(url: str) -> str:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError("must be of the form postgresql+asyncpg://USER:PASSWORD@HOST:PORT/DATABASE") from None
    # What libpq, and so every host of databases, calls sslmode is called ssl by asyncpg.
    query = {"ssl" if name == "sslmode" else name: value for name, value in parsed.query.items()}
    if unknown := sorted(query.keys() - {"ssl"}):
        raise ValueError(f"the parameter {unknown[0]!r} is not supported; only sslmode is")
    return parsed.set(query=query).render_as_string(hide_password=False)


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of HOST:PORT, without the brackets of an IPv6 address."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _env_file(path: Path) -> Mapping[str, str]:
    from dotenv import dotenv_values

    return {name: value or "" for name, value in dotenv_values(path).items()} if path.is_file() else {}
