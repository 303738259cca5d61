"""The demo's data: the docstrings of the public names in the standard library of the Python that runs this.

Read from the source files without importing them, in an order that does not depend on the file system. Identities are
derived from the names, so loading twice stores the same objects.
"""

from __future__ import annotations

import ast
import sysconfig
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Tests, and programs that come along; of `encodings` each of a hundred modules says the same.
LEFT_OUT = {
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "encodings",
    "_pyrepl",
    "site-packages",
    "dist-packages",
}
SHORTEST, LONGEST = 60, 2000  # characters
NAMESPACE = uuid.UUID("5f0f6d3c-2f8e-4c0e-9d1b-8a4f8b1f6c11")


@dataclass(frozen=True)
class Document:
    name: str  # such as datetime.date.fromisoformat
    text: str

    @property
    def id(self) -> str:
        return str(uuid.uuid5(NAMESPACE, self.name))


def documents() -> list[Document]:
    """All that are long enough to mean something; of equal texts the first."""
    library, found, texts = Path(sysconfig.get_path("stdlib")), {}, set()
    for path in sorted(library.rglob("*.py"), key=lambda p: p.relative_to(library).parts):
        parts = path.relative_to(library).with_suffix("").parts
        if LEFT_OUT.isdisjoint(parts):
            for document in in_module(path, module_name(parts)):
                if document.name not in found and document.text not in texts:
                    texts.add(document.text)
                    found[document.name] = document
    return list(found.values())


def module_name(parts: tuple[str, ...]) -> str:
    """Some modules keep what they say in a Python twin: datetime in _pydatetime, io in _pyio."""
    return ".".join(p.removeprefix("_py") for p in parts if p != "__init__")


def in_module(path: Path, module: str) -> Iterator[Document]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old string escapes in the library's own files
        try:
            tree = ast.parse(path.read_bytes())
        except SyntaxError:  # templates that are no programs
            return
    yield from in_node(tree, module)


def in_node(node: ast.AST, name: str) -> Iterator[Document]:
    text = (ast.get_docstring(node) or "")[:LONGEST]
    if len(text) >= SHORTEST:
        yield Document(name, text)
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            yield from in_node(child, f"{name}.{child.name}")
