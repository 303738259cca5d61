"""Archives as the real server writes and reads them: GNU tar, not compressed, files with holes as sparse entries.

The engine allocates files of 32 MiB for a handful of points. Python's tarfile reads sparse entries but does not write
them, so that is here.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any, BinaryIO

from .errors import internal

BLOCK = 512
IN_HEADER, IN_EXTENSION = 4, 21  # pieces of data that are described in a sparse header, and in each block after it


class Writer:
    """Writes to a real file, whose position is where the next entry goes."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def add_bytes(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self.file.write(header(info) + data + padding(len(data)))

    def add_folder(self, name: str) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        self.file.write(header(info))

    def add_tree(self, prefix: str, folder: Path, last: tuple[str, ...] = ()) -> None:
        """Every file below the folder, those named in `last` at the end."""
        names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        for name in sorted(names, key=lambda name: last.index(name) if name in last else -1):
            self.add_file(prefix + name, folder / name)

    def add_file(self, name: str, path: Path) -> None:
        with path.open("rb") as source:
            status = os.fstat(source.fileno())
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = status.st_size, int(status.st_mtime), 0o644
            pieces = [(0, info.size)]
            if status.st_blocks * 512 < info.size and info.size > 8 * BLOCK:
                pieces = data_pieces(source.fileno(), info.size)
                self.file.write(sparse_header(info, pieces))
            else:
                self.file.write(header(info))
            self.file.flush()
            for offset, length in pieces:
                copy_range(source.fileno(), self.file.fileno(), offset, length)
            self.file.seek(0, os.SEEK_END)
            self.file.write(padding(sum(length for _, length in pieces)))

    def finish(self) -> None:
        self.file.write(bytes(2 * BLOCK))
        self.file.flush()


def header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.GNU_FORMAT)


def padding(length: int) -> bytes:
    return bytes(-length % BLOCK)


def sparse_header(info: tarfile.TarInfo, pieces: list[tuple[int, int]]) -> bytes:
    """The old GNU form: the first pieces in the header, the others in blocks of their own. An empty piece marks the
    end of the file, without which the real server's reader refuses a file that ends in a hole."""
    entries = [*pieces, (info.size, 0)]
    whole = info.size
    info.type, info.size = tarfile.GNUTYPE_SPARSE, sum(length for _, length in pieces)
    *before, block = blocks(header(info))
    block[386 : 386 + IN_HEADER * 24] = piece_table(entries[:IN_HEADER], IN_HEADER)
    block[482] = len(entries) > IN_HEADER
    block[483:495] = number(whole)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    extensions = []
    for at in range(IN_HEADER, len(entries), IN_EXTENSION):
        extension = bytearray(piece_table(entries[at : at + IN_EXTENSION], IN_EXTENSION).ljust(BLOCK, b"\0"))
        extension[504] = len(entries) > at + IN_EXTENSION
        extensions.append(extension)
    return b"".join([*before, block, *extensions])


def blocks(data: bytes) -> list[bytearray]:
    return [bytearray(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK)]


def piece_table(pieces: list[tuple[int, int]], room: int) -> bytes:
    return b"".join(number(offset) + number(length) for offset, length in pieces).ljust(room * 24, b"\0")


def number(value: int) -> bytes:
    return b"%011o\0" % value


def data_pieces(source: int, size: int) -> list[tuple[int, int]]:
    """Where a file has data: (offset, length), in order."""
    pieces, at = [], 0
    while at < size:
        try:
            start = os.lseek(source, at, os.SEEK_DATA)
        except OSError:  # no data from here on
            break
        at = os.lseek(source, start, os.SEEK_HOLE)
        pieces.append((start, min(at, size) - start))
    return pieces


def copy_range(source: int, target: int, offset: int, length: int) -> None:
    """In the kernel, and without the interpreter's lock."""
    end = offset + length
    while offset < end:
        sent = os.sendfile(target, source, offset, min(end - offset, 1 << 24))
        if not sent:
            raise OSError(f"a file became shorter while it was copied, at byte {offset}")
        offset += sent


def copy_sparse(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("xb") as writer:
        size = os.fstat(reader.fileno()).st_size
        for offset, length in data_pieces(reader.fileno(), size):
            os.lseek(writer.fileno(), offset, os.SEEK_SET)
            copy_range(reader.fileno(), writer.fileno(), offset, length)
        writer.truncate(size)


# ---- reading --------------------------------------------------------------------------------------------------------


def unpack(stream: Any, folder: Path) -> None:
    """Unpack a stream. Only folders and files, plain or sparse, each once and inside the folder. No bytes at all are an
    empty archive, and one without its end mark is accepted: so does the real server."""
    folder.mkdir(parents=True)
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 20, tarinfo=StrictInfo) as archive:
            for member in archive:
                check(member, folder)
                extract(archive, member, folder)
    except (tarfile.TarError, OSError) as error:
        if str(error) == "empty file":
            return
        reason = f"Malformed tar archive, reached unknown entry: {error}"
        raise internal(f"Failed to unpack tar archive: {reason}") from error


class StrictInfo(tarfile.TarInfo):
    """tarfile takes a damaged header behind the first entry for the end of the archive; here it is an error."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:
            raise tarfile.ReadError(str(error)) from error


def check(member: tarfile.TarInfo, folder: Path) -> None:
    path = folder / member.name
    if not path.resolve().is_relative_to(folder.resolve()) or not (member.isreg() or member.isdir()):
        raise internal(f"Failed to unpack tar archive: entry `{member.name}` is not allowed")
    if member.isreg() and path.exists():
        raise internal(f"Failed to unpack tar archive: failed to unpack `{path}`: it exists")


def extract(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    member.mode |= 0o600
    safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    try:
        archive.extract(member, folder, set_attrs=False, **safely)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise internal(f"Failed to unpack tar archive: failed to unpack `{folder / member.name}`") from error
