"""Each of these tests runs on asyncio's own loop and on uvloop, which the service runs on."""

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def dialled() -> Iterator[list[object]]:
    """Every address that this process connects to. Of asyncio's own loop only: the other's calls are not audited."""
    _dialled.clear()
    yield _dialled
    _dialled.clear()


_dialled: list[object] = []


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect":
        _dialled.append(arguments[1])


sys.addaudithook(_audit)
