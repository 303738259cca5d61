"""Redis: a row is a hash, `COLLECTION:ID`, and all names are in one sorted set, `COLLECTION`, which finds those that begin
in some way. Both are written in one transaction.
"""

from __future__ import annotations

import socket
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from .client import CONNECT, PAGE, Answer, Client, Refused, Row

Reply = bytes | int | None | list


class Redis(Client):
    searches = False
    bookkeeping = 1  # the sorted set of names

    def __init__(self, url: str, api_key: str, collection: str, timeout: float) -> None:
        self._link = Link(url, api_key, timeout)
        self._names = collection

    def is_ready(self) -> bool:
        try:
            return self._link.call("PING") == b"PONG"
        except Refused:
            return False

    def create_collection(self, _: int) -> None:
        """There is nothing to make."""

    def write(self, rows: Sequence[Row]) -> None:
        commands: list[tuple] = [("MULTI",)]
        for row in rows:
            commands.append(("HSET", self._key(row.id), "name", row.name, "text", row.text))
            commands.append(("ZADD", self._names, 0, f"{row.name}\0{row.id}"))
        self._link.calls([*commands, ("EXEC",)])

    def count(self) -> int:
        return self._link.call("ZCARD", self._names)

    def ask(self, question: str, limit: int) -> list[Answer]:
        """In the order of their names."""
        wanted = ("ZRANGE", self._names, f"[{question}", f"({question}".encode() + b"\xff", "BYLEX", "LIMIT", 0, limit)
        ids = [entry.rpartition(b"\0")[2].decode() for entry in self._link.call(*wanted)]
        return [Answer(row.id, row.name, row.text) for row in self._rows(ids)]

    def rows(self) -> Iterator[Row]:
        """Of every hash, in no order; a name without its hash, or a hash without its name, is an error."""
        names, cursor = set(self._link.call("ZRANGE", self._names, 0, -1)), b"0"
        seen = set()
        while True:
            cursor, keys = self._link.call("SCAN", cursor, "MATCH", self._key("*"), "COUNT", PAGE)
            new = [key.decode().rpartition(":")[2] for key in keys if key not in seen]  # it may come twice
            seen.update(keys)
            for row in self._rows(new):
                names.remove(f"{row.name}\0{row.id}".encode())
                yield row
            if cursor == b"0":
                break
        if names:
            raise Refused(f"names without a row: {sorted(names)[:3]}")

    def _rows(self, ids: Sequence[str]) -> Iterator[Row]:
        found = self._link.calls([("HMGET", self._key(id), "name", "text") for id in ids])
        for id, fields in zip(ids, found, strict=True):
            name, text = ((field or b"").decode() for field in fields)
            yield Row(id, name, text, array("f"))

    def _key(self, id: str) -> str:
        return f"{self._names}:{id}"


class Link:
    """A connection, made when it is needed and dropped after any trouble."""

    def __init__(self, url: str, password: str, timeout: float) -> None:
        address = urlsplit(url)
        self._address, self._password, self._timeout = (address.hostname, address.port), password, timeout
        self._file = None

    def call(self, *words: object) -> Reply:
        return self.calls([words])[0]

    def calls(self, commands: Sequence[tuple]) -> list[Reply]:
        """All are sent, then all are answered. An error in any answer is `Refused`."""
        try:
            if self._file is None:
                self._connect()
            return self._exchange(commands)
        except (OSError, EOFError) as error:
            self._drop()
            raise Refused(f"{commands[0][0]}: {type(error).__name__}") from error

    def _connect(self) -> None:
        connection = socket.create_connection(self._address, CONNECT)
        connection.settimeout(self._timeout)
        self._file = connection.makefile("rwb")
        connection.close()  # the file keeps it open
        try:
            self._exchange([("AUTH", self._password)])
        except Refused:
            self._drop()
            raise

    def _exchange(self, commands: Sequence[tuple]) -> list[Reply]:
        for words in commands:
            parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
            packed = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
            self._file.write(b"*%d\r\n%s" % (len(parts), packed))
        self._file.flush()
        replies = [self._reply() for _ in commands]
        if refusals := [reply for reply in flat(replies) if isinstance(reply, Refused)]:
            raise refusals[0]
        return replies

    def _reply(self) -> Reply | Refused:
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            return Refused(rest.decode())
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if int(rest) < 0:
            return None
        if kind == b"*":
            return [self._reply() for _ in range(int(rest))]
        text = self._file.read(int(rest) + 2)
        if len(text) != int(rest) + 2:
            raise EOFError
        return text[:-2]

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # what was not sent is lost with the connection
                file.close()


def flat(replies: list) -> Iterator[Reply | Refused]:
    for reply in replies:
        if isinstance(reply, list):
            yield from flat(reply)
        else:
            yield reply
