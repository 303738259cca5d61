"""Reads how far a shard's write-ahead log goes, and makes an empty log file.

The log is the engine's own: it writes and replays it. It does not tell an operation's number, and the API has to answer
it (`operation_id`), so it is counted from the files. A record: length, data, padding, CRC-32C chained from the record
before. A file: `closed-<number of its first record>`, or `open-<n>`, which goes on where the last closed file ends.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

import crc32c

CAPACITY = 32 << 20  # bytes of a log file, as the engine makes them
HEADER = 8


def next_number(folder: Path) -> int:
    """The number that the next operation will get."""
    names = os.listdir(folder)
    closed = sorted(int(name[7:]) for name in names if name.startswith("closed-"))
    end = closed[-1] + count(folder / f"closed-{closed[-1]}") if closed else 0
    return end + sum(count(folder / name) for name in names if name.startswith("open-"))


def count(path: Path) -> int:
    """The records up to the first one that is not whole."""
    size = path.stat().st_size
    if size <= HEADER:
        return 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as log:
        if log[:4] != b"wal\0":
            return 0
        (crc,) = struct.unpack_from("<I", log, 4)
        at, records = HEADER, 0
        while at + 12 <= size:
            (length,) = struct.unpack_from("<Q", log, at)
            end = at + 8 + length + ((4 - length) & 7)
            if not length or end + 4 > size:
                break
            crc = crc32c.crc32c(log[at:end], chained(crc))
            if struct.unpack_from("<I", log, end) != (crc,):
                break
            at, records = end + 4, records + 1
        return records


def chained(crc: int) -> int:
    return ~int(f"{crc:032b}"[::-1], 2) & 0xFFFFFFFF


def write_empty(path: Path) -> None:
    """A log file without records. Named `closed-<n>` it makes numbering go on at n."""
    with path.open("wb") as file:
        file.write(b"wal\0" + os.urandom(4))
        file.truncate(CAPACITY)
