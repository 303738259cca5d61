"""The closing table: what was lost and how long it took, an unplanned loss beside a planned replacement."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass
class Replacement:
    """What was measured around one replacement; a field's metadata is its line in the table."""

    rows_before: int = 0
    rows_after: int = 0
    lost_before_backup: int = 0  # acknowledged, in the backup that was restored, and not there afterwards
    lost_after_backup: int = 0  # acknowledged after that backup
    backup_seconds: float = 0
    backup_bytes: int = 0
    restore_seconds: float = 0
    away_seconds: float = 0  # from death, or from the first refused write, to serving
    same_answers: int = 0


LABELS = {
    "away_seconds": "not served, seconds",
    "backup_seconds": "backup, seconds",
    "backup_bytes": "backup, MB",
    "restore_seconds": "restore, seconds",
    "rows_before": "acknowledged rows before",
    "rows_after": "rows after",
    "lost_after_backup": "lost: written after the backup",
    "lost_before_backup": "lost: any other",
    "same_answers": "questions answered the same",
}
HEADS = ("", "hardware died", "replaced as planned")


def table(died: Replacement, planned: Replacement) -> list[str]:
    assert set(LABELS) == {field.name for field in fields(Replacement)}
    rows = [HEADS, *((label, *(shown(name, r) for r in (died, planned))) for name, label in LABELS.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{row[0]:<{widths[0]}}   {row[1]:>{widths[1]}}   {row[2]:>{widths[2]}}" for row in rows]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def shown(name: str, replacement: Replacement) -> str:
    value = getattr(replacement, name)
    if name.endswith("_bytes"):
        return f"{value / 1e6:.1f}"
    return f"{value:.1f}" if isinstance(value, float) else f"{value}"
