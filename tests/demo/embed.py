"""Texts to vectors, with the static model inside the PyPI package wordllama: a row for each token, their mean, length one.

The package's own loader would download; its two data files are read instead. What was computed is kept in the cache
folder, named after the texts and the model, so another text or model is computed anew.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

MODEL = "l2_supercat"
DIMENSIONS = 256


class Embedder:
    def __init__(self, cache: Path) -> None:
        package = importlib.util.find_spec("wordllama")
        if package is None:
            raise RuntimeError("the Python package wordllama is missing; tests/setup installs it")
        folder = Path(package.submodule_search_locations[0])
        self._weights = folder / "weights" / f"{MODEL}_{DIMENSIONS}.safetensors"
        self._tokens = folder / "tokenizers" / f"{MODEL}_tokenizer_config.json"
        self._cache = cache

    @cached_property
    def _table(self) -> np.ndarray:
        return load_file(self._weights)["embedding.weight"].astype(np.float32)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(str(self._tokens))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """One row a text."""
        rows = np.empty((len(texts), DIMENSIONS), np.float32)
        for row, encoded in zip(rows, self._tokenizer.encode_batch(list(texts), add_special_tokens=False), strict=True):
            mean = self._table[encoded.ids].mean(axis=0)
            row[:] = mean / np.linalg.norm(mean)
        return rows

    def cached(self, texts: Sequence[str]) -> np.ndarray:
        """The same, kept for the next run."""
        path = self._cache / f"{self._name(texts)}.npy"
        if path.is_file():
            return np.load(path)
        rows, unfinished = self(texts), path.with_name(f"{path.name}.{os.getpid()}")
        self._cache.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            np.save(file, rows)
        unfinished.rename(path)  # whole or not there
        return rows

    def _name(self, texts: Sequence[str]) -> str:
        digest = hashlib.sha256(self._weights.read_bytes())
        for text in texts:
            digest.update(text.encode() + b"\0")
        return digest.hexdigest()[:32]
