"""Names into addresses, by the system's resolver, whose blocking calls run in threads of their own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Sequence

from lifecycle_engine.webhook.addresses import Address, canonical

Lookup = Callable[[str, int], Sequence[str]]
"""All addresses of a host, the preferred ones first. Blocks; raises OSError where there is none."""

AT_A_TIME = 64
"""Lookups that may run at once: a name server that hangs holds up its own names, and a thread each."""


def system_lookup(host: str, port: int) -> Sequence[str]:
    """What `getaddrinfo` answers: by the hosts file, the name servers, and whatever else the system is set up for."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for _, _, _, _, address in answers]


class Resolver:
    """Resolves each name once at a time, however many ask for it.

    The loop's own executor would not do: few threads (uvloop has four for names), which names that hang would fill for
    everyone, and which a process waits for before it ends.
    """

    def __init__(self, lookup: Lookup = system_lookup) -> None:
        self._lookup = lookup
        self._running: dict[tuple[str, int], asyncio.Task[tuple[Address, ...]]] = {}
        self._room = asyncio.Semaphore(AT_A_TIME)

    async def resolve(self, host: str, port: int) -> tuple[Address, ...]:
        """All addresses of a host, in canonical form. Raises OSError where it has none; waits as long as it takes."""
        key = host, port
        if (running := self._running.get(key)) is None:
            running = self._running[key] = asyncio.create_task(self._resolve(host, port))
            running.add_done_callback(lambda _: self._running.pop(key))
            running.add_done_callback(_looked_at)
        # Whoever is cancelled leaves the answer to the others.
        return await asyncio.shield(running)

    async def close(self) -> None:
        """Waits for no lookup: what their threads still find, nobody hears."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _resolve(self, host: str, port: int) -> tuple[Address, ...]:
        async with self._room:
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[Sequence[str]] = loop.create_future()
            arguments = (loop, answer, host, port)
            # A daemon, as the end of the process must not wait for a name server.
            threading.Thread(target=self._look_up, args=arguments, name=f"resolve {host}", daemon=True).start()
            found = await answer
        try:
            return tuple(dict.fromkeys(canonical(address.partition("%")[0]) for address in found))
        except ValueError as error:
            raise OSError(f"an answer that is no address: {error}") from None

    def _look_up(
        self, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[Sequence[str]], host: str, port: int
    ) -> None:
        found: Sequence[str] | OSError
        try:
            found = self._lookup(host, port)
        except OSError as error:
            found = error
        except Exception as error:  # a name that the resolver's encoding refuses, most likely
            found = OSError(str(error))
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(_tell, answer, found)


def _tell(answer: asyncio.Future[Sequence[str]], found: Sequence[str] | OSError) -> None:
    if answer.done():
        return
    if isinstance(found, OSError):
        answer.set_exception(found)
    else:
        answer.set_result(found)


def _looked_at(task: asyncio.Task[tuple[Address, ...]]) -> None:
    """Takes note of an exception for which perhaps nobody waits any more."""
    if not task.cancelled():
        task.exception()
