"""The closing table: an unplanned loss beside a planned replacement."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass
class Replacement:
    """What was measured around one replacement. None: does not apply."""

    death_to_serving: float | None = None  # seconds, from the death to an answer through the address
    writes_refused: float | None = None  # seconds, the longest stretch
    reads_refused: float | None = None
    backup: float = 0  # seconds
    restore: float = 0  # seconds
    backup_bytes: int = 0
    rows_before: int = 0  # acknowledged
    rows_after: int = 0
    lost_after_backup: int = 0  # acknowledged after the backup that was restored
    lost_otherwise: int = 0
    same_answers: str = ""


LABELS = {
    "death_to_serving": "seconds from death to serving",
    "writes_refused": "seconds of refused writes",
    "reads_refused": "seconds of refused reads",
    "backup": "backup, seconds",
    "restore": "restore, seconds",
    "backup_bytes": "backup, MB",
    "rows_before": "acknowledged rows",
    "rows_after": "rows found afterwards",
    "lost_after_backup": "lost: written after the backup",
    "lost_otherwise": "lost: any other",
    "same_answers": "questions answered the same",
}
assert [*LABELS] == [field.name for field in fields(Replacement)]


def table(died: Replacement, planned: Replacement) -> list[str]:
    head = ("", "hardware died", "planned replacement")
    rows = [head, *((label, *(shown(name, r) for r in (died, planned))) for name, label in LABELS.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{row[0]:<{widths[0]}}   {row[1]:>{widths[1]}}   {row[2]:>{widths[2]}}" for row in rows]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def shown(name: str, replacement: Replacement) -> str:
    value = getattr(replacement, name)
    if value is None:
        return "-"
    if name == "backup_bytes":
        return f"{value / 1e6:.2f}"
    return f"{value:.1f}" if isinstance(value, float) else f"{value}"
