"""Posts the CDNOW purchase log to a running service and asks how many customers were in which stage on three days.

python -m examples.cdnow --base http://127.0.0.1:8000 --key KEY
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from examples.cdnow import client
from examples.cdnow.client import Client, ClientError
from examples.cdnow.purchases import read_purchases

DAYS = ("1997-03-31", "1997-12-31", "1998-06-30")
STAGES = ("awareness", "consideration", "purchase", "retention", "advocacy")

console = Console()


def main() -> int:
    """Gives the exit code: 0 done, 1 the service cannot be used, 130 interrupted."""
    options = _options()
    try:
        asyncio.run(_run(options.base, options.key, options.sample))
    except ClientError as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail("interrupted; run it again to go on: ids are the same, so nothing will be counted twice", 130)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.cdnow", description=__doc__.partition("\n")[0])
    parser.add_argument("--base", default="http://127.0.0.1:8000", metavar="URL", help="default: %(default)s")
    parser.add_argument("--key", help="an API key; default: what LIFECYCLE_API_KEY says")
    parser.add_argument("--sample", type=_positive, metavar="N", help="ask about N customers only, chosen by lot")
    options = parser.parse_args()
    options.key = options.key or os.environ.get("LIFECYCLE_API_KEY")
    if not options.key:
        parser.error("no API key: give one with --key or LIFECYCLE_API_KEY (a first start of the service prints one)")
    if not (options.key.isascii() and options.key.isprintable()):
        parser.error("the API key is not one of this service's: it has characters that they don't have")
    try:
        scheme = httpx.URL(options.base).scheme
    except httpx.InvalidURL as error:
        parser.error(f"--base {options.base}: {error}")
    if scheme not in ("http", "https"):
        parser.error(f"--base {options.base}: must begin with http:// or https://")
    return options


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of customers, such as 500")
    return int(text)


async def _run(base: str, key: str, sample: int | None) -> None:
    purchases = read_purchases()
    customers = sorted({purchase["customer_id"] for purchase in purchases})
    asked = customers if sample is None else random.sample(customers, min(sample, len(customers)))
    headers = {"Authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=max(client.POSTING, client.ASKING))
    async with httpx.AsyncClient(base_url=base, headers=headers, limits=limits, timeout=30) as http:
        service = Client(http)
        await service.check()
        console.print(f"{len(purchases):,} purchases of {len(customers):,} customers")
        began = time.monotonic()
        with _progress() as progress:
            posting = progress.add_task("Posting", total=len(purchases), rated=True)
            accepted = await service.post(purchases, lambda more: progress.advance(posting, more))
            # Without a rate: what has been applied while the rest was still being posted is found done at once.
            applying = progress.add_task("Applying", total=len(purchases), rated=False)
            await service.wait_until_applied(accepted, lambda more: progress.advance(applying, more))
        seconds = time.monotonic() - began
        console.print(f"Posted and applied in {seconds:.1f} s: {len(purchases) / seconds:,.0f}/s")
        with _progress() as progress:
            questions = [(customer, f"{day}T23:59:59.999999Z") for day in DAYS for customer in asked]
            asking = progress.add_task("Asking", total=len(questions), rated=True)
            answers = await service.stages(questions, lambda more: progress.advance(asking, more))
    console.print(_table(Counter((as_of[:10], stage) for as_of, stage in answers), len(asked)))


def _table(counts: Counter[tuple[str, str | None]], customers: int) -> Table:
    table = Table(title=f"Stages of {customers:,} customers at the end of the day (UTC)")
    table.add_column("stage")
    for day in DAYS:
        table.add_column(day, justify="right")
    for stage in (None, *STAGES):
        table.add_row(stage or "(no journey yet)", *(f"{counts[day, stage]:,}" for day in DAYS))
    return table


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = (task.finished_speed or task.speed) if task.fields["rated"] else None
        return Text("" if speed is None else f"{speed:,.0f}/s", style="progress.data.speed")


@contextmanager
def _progress() -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console) as progress:
        yield progress


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
