"""The results as a JSON document, as Markdown, and on the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from .data import MIB
from .extras import Row
from .figures import Figures, figure
from .rounds import JOBS
from .systems import System
from .wanted import US, Wish

ABSENT = "-"
NAMES = {
    "base": "backup",
    "restore": "restore into an empty folder",
    "delta restore": "restore over the tree with 1 % overwritten at random",
    "verify": "verify all that is stored",
    "nothing": "increment, nothing changed",
    "append": "increment, 1 % appended",
    "block": "increment, 1 % overwritten in one block",
    "random": "increment, 1 % overwritten at random",
}
INCREMENTS = ("nothing", "append", "block", "random")


def write(folder: Path, name: str, document: dict, text: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.json", folder / f"{name}.md"]
    for path, content in zip(paths, (json.dumps(document, indent=1) + "\n", text), strict=True):
        unfinished = path.with_name(f"{path.name}.new")
        unfinished.write_text(content)
        unfinished.rename(path)
    return paths


def markdown(document: dict, kinds: Sequence[type[System]], wishes: list[Wish]) -> str:
    found, missing, failed = document["systems"], document["missing"], document["failed"]
    taking_part = [kind for kind in kinds if kind.name in found]
    parts = [
        "# Benchmark of the archive engine",
        head(document),
        *(f"**{title} did not take part:** {reason}" for title, reason in missing.items()),
        *(f"**{title} failed on the way:** `{first(reason)}`" for title, reason in failed.items()),
        "## Seconds",
        "Median, and in brackets Perennial's as a multiple of it (below 1: Perennial is faster).",
        compared(found, taking_part, "seconds", lambda v: f"{v:.2f}", whole=True),
        "## CPU seconds of the system's processes",
        compared(found, taking_part, "cpu_seconds", lambda v: f"{v:.2f}"),
        "## Peak memory of the system's processes, MiB",
        compared(found, taking_part, "peak_bytes", lambda v: f"{v / MIB:.0f}"),
        "## Bytes in the bucket, and sent to it, MB",
        compared(found, taking_part, "stored_bytes", megabytes, ("base",), {"base": "stored after the backup"}),
        compared(found, taking_part, "uploaded_bytes", megabytes, INCREMENTS, whole=True),
        "## Requests",
        requests(found, taking_part),
        "## Wanted",
        wanted(wishes),
        *extra_tables(document["extras"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def head(document: dict) -> str:
    machine, data = document["machine"], document["data"]
    others, seeds = document["others_cpus_busy"], "seeds" in document["systems"]
    lines = [
        f"{document['made_at']}; {machine['cpu']}, {machine['cpus']} CPUs, {machine['memory_bytes'] / 2**30:.0f} GiB memory, "
        f"{machine['kernel']}.",
        f"Data: {data['bytes'] / MIB:.0f} MiB in {data['files']} files (60 % vectors, 25 % payload, 15 % small and middle "
        f"files; see `tests/bench/data.py`); 1 % is {data['changed_bytes'] / 1e6:.2f} MB.",
        f"Medians of {document['rounds']} rounds, in each of which every system had its turn, in another order."
        + (" The seeds' script was measured once, because level 19 takes minutes." if seeds else ""),
        "restic encrypts, and derives its key from the password in every command, which is slow on purpose.",
        f"Trees, restored trees and the S3 server (versitygw, on this machine, sharing its CPUs) were on {place(document['where'])}; "
        "what was read was in memory for every system.",
        "Every restored tree was compared with the original by content; s5cmd moves an archive that was made beforehand, "
        "Perennial's own where that takes part, and does not unpack it: reading, hashing and compressing are free to it.",
        f"Other programs kept {others:.2f} CPUs busy meanwhile (median).",
        "Programs: " + "; ".join(f"{name}: {version}" for name, version in document["programs"].items()) + ".",
    ]
    return "\n".join(f"* {line}" for line in lines)


def place(where: str) -> str:
    return {"memory": "tmpfs (memory)", "disk": "disk"}.get(where, where)


def compared(
    found: Figures,
    kinds: Sequence[type[System]],
    number: str,
    shown: Callable[[float], str],
    jobs: Sequence[str] = JOBS,
    names: dict[str, str] = NAMES,
    whole: bool = False,
) -> str:
    """A row a job, a column a system. `whole`: a system without increments has its backup's figure there."""
    rows = []
    for job in jobs:
        cells = []
        for kind in kinds:
            value, again = figure(found, kind.name, job, number), ""
            if value is None and whole and job in INCREMENTS:
                value, again = figure(found, kind.name, "base", number), ", whole again"
            if value is None:
                cells.append(ABSENT)
                continue
            ours = figure(found, US, job, number)
            times = f" ({ours / value:.2f}{again})" if kind.name != US and ours is not None and value else again
            cells.append(shown(value) + times)
        rows.append([names[job], *cells])
    return table(["", *(kind.title for kind in kinds)], rows)


def requests(found: Figures, kinds: Sequence[type[System]]) -> str:
    rows = []
    for job in JOBS:
        cells = []
        for kind in kinds:
            asked = found.get(kind.name, {}).get(job, {}).get("requests")
            each = ", ".join(f"{n} {name}" for name, n in (asked or {}).items())
            cells.append(f"{sum(asked.values())}: {each}" if asked else "0" if asked == {} else ABSENT)
        rows.append([NAMES[job], *cells])
    return table(["", *(kind.title for kind in kinds)], rows)


def wanted(wishes: list[Wish]) -> str:
    verdicts = {True: "yes", False: "**no**", None: "not measured"}
    return table(
        ["", "wanted", "found", "holds"],
        [
            [
                wish.what,
                f"{'<' if wish.below else '<='} {wish.limit:g} {wish.unit}".rstrip(),
                ABSENT if wish.found is None else f"{wish.found:.3g} {wish.unit}".rstrip(),
                verdicts[wish.holds],
            ]
            for wish in wishes
        ],
    )


TITLES = {
    "chunk sizes": "Chunk size: an increment after 1 % overwritten at random",
    "sizes": "Cost and size of the data",
    "files": "Cost and number of files",
    "days": "Seven days with 5 % changed each, half appended, the rest in blocks and small files",
    "days, scattered": "Seven days with 5 % changed each, all as single vectors at random places",
}


def extra_tables(extras: dict[str, list[Row]]) -> list[str]:
    parts = []
    for name, rows in extras.items():
        parts.append(f"## {TITLES[name]}")
        parts.extend(f"Not measured: `{first(row['not_measured'])}`" for row in rows if "not_measured" in row)
        measured = [row for row in rows if "not_measured" not in row]
        if measured:
            columns = list(measured[0])
            parts.append(
                table([heading(c) for c in columns], [[cell(c, row.get(c)) for c in columns] for row in measured])
            )
    return parts


def heading(column: str) -> str:
    name, _, unit = column.rpartition("_")
    what = name.replace("_", " ")
    if column == "bytes":
        return "data, MiB"
    return {"seconds": f"{what}, s", "bytes": f"{what}, {'MiB' if 'peak' in name else 'MB'}"}.get(
        unit, column.replace("_", " ")
    )


def cell(column: str, value: object) -> str:
    if value is None:
        return ABSENT
    if column == "bytes" or column.endswith("peak_bytes"):
        return f"{value / MIB:.0f}" if value >= MIB else f"{value / MIB:.1g}"
    if column.endswith("_bytes"):
        return megabytes(value)
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def megabytes(value: float) -> str:
    return f"{value / 1e6:.1f}" if value >= 1e5 else f"{value / 1e6:.3f}"


def table(header: list[str], rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def first(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "")
