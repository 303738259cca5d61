"""Folders of data: what is in them, copies that share unchanged files, and exchanging one for another."""

from __future__ import annotations

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PIECE = 1 << 20
SHOWN = 5  # differences in a message

Fingerprint = dict[str, str]  # path in the tree -> SHA-256 of the content


class Differs(Exception):
    """What a system brought back is not what it was given. This fails the benchmark."""


def files(root: Path) -> list[Path]:
    return sorted(Path(folder, name) for folder, _, names in os.walk(root) for name in names)


def total_bytes(root: Path) -> int:
    return sum(path.lstat().st_size for path in files(root))


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def fingerprint(root: Path) -> Fingerprint:
    paths = files(root)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return {
            str(path.relative_to(root)): digest for path, digest in zip(paths, threads.map(sha256, paths), strict=True)
        }


def name_of(known: Fingerprint) -> str:
    """One hash for the whole tree, to tell whether two runs had the same data."""
    return hashlib.sha256("".join(f"{path}\0{known[path]}\0" for path in sorted(known)).encode()).hexdigest()


def must_equal(root: Path, expected: Fingerprint, what: str) -> None:
    found = fingerprint(root)
    if found == expected:
        return
    wrong = [f"{path} is missing" for path in expected if path not in found]
    wrong += [f"{path} should not be there" for path in found if path not in expected]
    wrong += [f"{path} has another content" for path in expected if found.get(path, expected[path]) != expected[path]]
    more = f", and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    raise Differs(f"{what}: {'; '.join(wrong[:SHOWN])}{more}")


def linked_copy(source: Path, target: Path) -> None:
    """Files are hard links, so they keep their time, inode and content until `unshare`."""
    shutil.copytree(source, target, copy_function=os.link)


def unshare(path: Path) -> None:
    """Before a file of a linked copy is changed."""
    copy = path.with_name(f"{path.name}.copy")
    shutil.copy2(path, copy)
    copy.replace(path)


def real_copy(source: Path, target: Path) -> None:
    remove(target)
    shutil.copytree(source, target)


def remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def emptied(folder: Path) -> Path:
    remove(folder)
    folder.mkdir(parents=True)
    return folder
