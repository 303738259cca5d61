"""The data: what the folder of a vector store holds, made from a seed.

Of the bytes, 60 % are vectors, 25 % payload, 15 % small and middle files:

* `vectors/`: 32-bit floats, each vector of length one. Half the bytes are gaussian with 128 dimensions (512 bytes a
  vector), half are real embeddings with 256: those of the docstrings of Python's standard library (tests/demo), taken
  again and again with a small jitter. In files of up to 256 MiB, one to each kind at 512 MiB in all.
* `payload/`: JSON lines with those docstrings, in files of up to 128 MiB.
* `small/`: 5,000 files of 0.2 to 20 KiB for each 512 MiB, equally many in each octave; half text, half vectors.
* `segments/`: the rest, in files of 0.5 to 4 MiB: neighbour lists (32-bit numbers) as a graph index keeps them.

Changes touch only the files that they change. A run of the same size, Python and NumPy has the same bytes; the report has their hash.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np

from demo.corpus import Document, documents
from demo.embed import Embedder

from .tree import files, linked_copy, unshare

MIB = 1 << 20
SEED = 20261121
VECTORS, PAYLOAD = 0.60, 0.25  # of all bytes; small/ and segments/ have the rest
VECTOR_FILE, PAYLOAD_FILE = 256 * MIB, 128 * MIB  # at most
SMALL_FILES, SMALLEST, LARGEST = 5000, 205, 20 * 1024  # files for each 512 MiB; bytes
SEGMENT = (MIB // 2, 4 * MIB)
SLOT = 512  # bytes: one gaussian vector, half an embedding
DIMENSIONS = SLOT // 4
JITTER = 0.02
BLOCK = 4 * MIB  # vectors made at once
VARIANTS = ("nothing", "append", "block", "random")


class Data:
    """Makes trees; holds the texts and their embeddings."""

    def __init__(self, cache: Path) -> None:
        self._documents = documents()
        self._embeddings = Embedder(cache / "demo" / "embeddings").cached(
            [f"{d.name}\n{d.text}" for d in self._documents]
        )

    def make(self, root: Path, size: int) -> None:
        """A tree of about `size` bytes at a folder that does not exist yet."""
        half = int(size * VECTORS / 2)
        for kind, make in (("gaussian", self._gaussian), ("embeddings", self._embedded)):
            for number, part in enumerate(split(half // 1024 * 1024, VECTOR_FILE)):
                write(root / "vectors" / f"{kind}-{number:03}.f32", make(generator(kind, number), part))
        for number, part in enumerate(split(int(size * PAYLOAD), PAYLOAD_FILE)):
            write(root / "payload" / f"part-{number:03}.jsonl", self._payload(generator("payload", number), part))
        left = size - 2 * half - int(size * PAYLOAD)
        left -= self.make_small(root / "small", round(SMALL_FILES * size / (512 * MIB)))
        self._segments(root / "segments", left)

    def make_small(self, folder: Path, number: int) -> int:
        """Also alone, for the cost of many files. The bytes written."""
        random, text = generator("small"), b"\n".join(d.text.encode() for d in self._documents)
        sizes = np.exp(random.uniform(math.log(SMALLEST), math.log(LARGEST), number)).astype(int)
        for index, size in enumerate(sizes):
            at = int(random.integers(len(text) - LARGEST))
            content = text[at : at + size] if index % 2 else unit_vectors(random, size // SLOT + 1).tobytes()[:size]
            path = folder / f"{index // 500:03}" / f"{index:06}.dat"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return int(sizes.sum())

    def _gaussian(self, random: np.random.Generator, size: int) -> Iterator[bytes]:
        for part in split(size, BLOCK):
            yield unit_vectors(random, part // SLOT).tobytes()

    def _embedded(self, random: np.random.Generator, size: int) -> Iterator[bytes]:
        wide = self._embeddings.shape[1]
        for part in split(size, BLOCK):
            rows = self._embeddings[random.integers(len(self._embeddings), size=part // (4 * wide))]
            yield normalised(rows + JITTER * random.standard_normal(rows.shape, np.float32)).tobytes()

    def _payload(self, random: np.random.Generator, size: int) -> Iterator[bytes]:
        written = 0
        for number in count():
            line = self._row(number, self._documents[random.integers(len(self._documents))], random)
            yield line[: size - written]
            written += len(line)
            if written >= size:
                return

    @staticmethod
    def _row(number: int, document: Document, random: np.random.Generator) -> bytes:
        high, low = random.integers(1 << 63, size=2)
        row = {
            "id": f"{high:016x}{low:016x}",
            "number": number,
            "name": document.name,
            "text": document.text,
            "score": float(random.random()),
        }
        return json.dumps(row).encode() + b"\n"

    @staticmethod
    def _segments(folder: Path, size: int) -> None:
        number = 0
        while size > 0:
            random = generator("segments", number)
            part = min(size, int(random.integers(*SEGMENT)))
            nodes = np.sort(random.integers(1 << 20, size=(part // 128 + 1, 32), dtype=np.uint32), axis=1)
            write(folder / f"{number:05}.seg", iter([nodes.tobytes()[:part]]))
            size, number = size - part, number + 1


# ---- changes ---------------------------------------------------------------------------------------------------------


def variant(base: Path, target: Path, kind: str, size: int) -> None:
    """A tree that differs from the base by `size` bytes in the way of the kind, and shares every other file with it."""
    linked_copy(base, target)
    random = generator("variant", kind)
    if kind == "random":
        overwrite_slots(target, size, random, shared=True)
    elif kind == "block":
        overwrite_block(vector_files(target)[0], size, random, shared=True)
    elif kind == "append":
        append(vector_files(target)[-1], size, random, shared=True)


def day(root: Path, number: int, size: int, scattered: bool) -> None:
    """Changes a tree in place as one day might. Scattered: all as single vectors at random places. Otherwise half is
    appended to vectors and payload, two fifths are overwritten in eight blocks, a tenth is small files written anew.
    """
    random = generator("day", number, scattered)
    if scattered:
        overwrite_slots(root, size, random)
        return
    vectors, payloads, small = vector_files(root), files(root / "payload"), files(root / "small")
    append(vectors[-1], size * 3 // 10, random)
    with payloads[-1].open("ab") as file:
        source = payloads[0].read_bytes()
        at = int(random.integers(max(1, len(source) - size // 5)))
        file.write(source[at : at + size // 5])
    for _ in range(8):
        overwrite_block(vectors[random.integers(len(vectors))], size // 20, random)
    rewritten = 0
    for index in random.permutation(len(small)):
        if rewritten >= size // 10:
            break
        length = small[index].stat().st_size
        small[index].write_bytes(random.bytes(length))
        rewritten += length


def overwrite_slots(root: Path, size: int, random: np.random.Generator, shared: bool = False) -> None:
    """Vectors of 512 bytes at random places of all vector files."""
    paths = vector_files(root)
    slots = [path.stat().st_size // SLOT for path in paths]
    chosen = np.sort(random.choice(sum(slots), size // SLOT, replace=False))
    first = 0
    for path, number in zip(paths, slots, strict=True):
        mine = chosen[(chosen >= first) & (chosen < first + number)] - first
        first += number
        if shared:
            unshare(path)
        with path.open("r+b") as file:
            for at, vector in zip(mine.tolist(), unit_vectors(random, len(mine)), strict=True):
                file.seek(at * SLOT)
                file.write(vector.tobytes())


def overwrite_block(path: Path, size: int, random: np.random.Generator, shared: bool = False) -> None:
    if shared:
        unshare(path)
    at = int(random.integers((path.stat().st_size - size) // SLOT)) * SLOT
    with path.open("r+b") as file:
        file.seek(at)
        file.write(unit_vectors(random, size // SLOT).tobytes())


def append(path: Path, size: int, random: np.random.Generator, shared: bool = False) -> None:
    if shared:
        unshare(path)
    with path.open("ab") as file:
        file.write(unit_vectors(random, size // SLOT).tobytes())


# ---- parts -----------------------------------------------------------------------------------------------------------


def vector_files(root: Path) -> list[Path]:
    return files(root / "vectors")


def generator(*what: object) -> np.random.Generator:
    """Of its own for each purpose, so that one part's size does not change another part."""
    return np.random.default_rng([SEED, *(" ".join(map(str, what))).encode()])


def unit_vectors(random: np.random.Generator, number: int) -> np.ndarray:
    return normalised(random.standard_normal((number, DIMENSIONS), np.float32))


def normalised(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def split(size: int, largest: int) -> list[int]:
    whole, rest = divmod(size, largest)
    return [largest] * whole + ([rest] if rest else [])


def write(path: Path, parts: Iterator[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.writelines(parts)
