"""Tables as Markdown, and their place in a document."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

BEGIN = "<!-- measured: begin -->"
END = "<!-- measured: end -->"
LIBRARIES = (
    "aiokafka",
    "asyncpg",
    "cel-expr-python",
    "fastapi",
    "msgspec",
    "sqlalchemy",
    "starlette",
    "uvicorn",
    "uvloop",
)


@dataclass(frozen=True)
class Section:
    """A table with its heading. The first column is text, the others are figures."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        rule = ["-", *["-:"] * (len(self.header) - 1)]
        lines = [f"| {' | '.join(cells)} |" for cells in (self.header, rule, *self.rows)]
        return "\n".join([f"### {self.title}", "", *lines])


def document(sections: Sequence[Section], setting: Sequence[str]) -> str:
    """The whole report: where and how it was measured, then the tables."""
    return "\n\n".join([" · ".join(setting), *(section.markdown() for section in sections)]) + "\n"


def setting(command: str, cores: int, postgresql: str, kafka: str) -> list[str]:
    """What must be known to read the figures; names no machine."""
    return [
        f"`{command}`",
        f"{datetime.now(UTC):%Y-%m-%d}",
        f"{cores} cores ({platform.machine()}) for everything, the load included",
        f"{platform.python_implementation()} {platform.python_version()}",
        f"PostgreSQL {postgresql}",
        f"Apache Kafka {kafka}",
        *(f"{name} {version(name)}" for name in LIBRARIES),
    ]


def check_place(path: Path) -> None:
    """Raises ValueError unless the document has the two marks that tables are written between."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not 0 <= text.find(BEGIN) < text.find(END):
        raise ValueError(f"{path} has no lines `{BEGIN}` and `{END}` to write the tables between")


def write(path: Path, report: str) -> None:
    """Replaces what stands between the two marks of the document."""
    check_place(path)
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n\n{report}\n{END}{after}", encoding="utf-8")


def rate(samples: Sequence[float]) -> str:
    """The median, and from where to where the samples go."""
    median = f"{statistics.median(samples):,.0f}"
    return median if len(samples) == 1 else f"{median} ({min(samples):,.0f} to {max(samples):,.0f})"


def milliseconds(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:.1f}"


def microseconds(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds) * 1e6:,.0f}" if seconds else "not measured"


def ratio(samples: Sequence[float], others: Sequence[float]) -> str:
    """The median of the ratios within each round: what slows a whole round down is taken out."""
    median = statistics.median(one / other for one, other in zip(samples, others, strict=True))
    return f"{median:.2f}" if median < 3 else f"{median:.1f}"
