"""The CDNOW purchase log as touchpoints."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

DATA = Path(__file__).with_name("cdnow.csv.gz")

Touchpoint = dict[str, Any]


def read_purchases() -> list[Touchpoint]:
    """One touchpoint for each row, in the file's order (by customer, then day).

    The id comes from the row's number, because nothing else tells two equal rows apart. Rows have a day and no time,
    so `occurred_at` is the day's beginning in UTC. All are muted: this is an import, and no news to anybody.
    """
    with gzip.open(DATA, "rt", encoding="ascii", newline="") as file:
        return [
            {
                "id": f"cdnow-{number:06}",
                "type": "purchase",
                "customer_id": row["customer_id"],
                "occurred_at": f"{row['date']}T00:00:00Z",
                "properties": {"units": int(row["units"]), "amount": float(row["amount_usd"])},
                "muted": True,
            }
            for number, row in enumerate(csv.DictReader(file), 1)
        ]
