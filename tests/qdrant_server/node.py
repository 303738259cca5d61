"""The node: its collections, aliases and folders, and the thread that flushes.

    <storage>/raft_state.json   this_peer_id, part of snapshot names
    <storage>/collections/      one folder a collection
    <storage>/aliases/data.json {alias: collection}, replaced in one step
    <storage>/tmp/              wiped at start; .deleted/ too

A collection or alias that was acknowledged is on disk. Deleting renames the collection's folder away first, so a crash
leaves it whole or gone. Aliases change all together or not at all.
"""

from __future__ import annotations

import secrets
import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from .collection import Collection
from .errors import bad_request, collection_exists, no_collection, wrong_input
from .files import read_json, temporary, write_json

Json = dict[str, Any]


class Node:
    def __init__(self, storage: Path, snapshots: Path) -> None:
        self.storage, self.snapshots, self.tmp = storage.resolve(), snapshots.resolve(), storage.resolve() / "tmp"
        self.lock = threading.RLock()  # of collections and aliases; held for moments, never while a snapshot is made
        self.collections: dict[str, Collection] = {}
        self.running: dict[str, Counter[str]] = {"creation": Counter(), "recovery": Counter()}
        self.created: Counter[str] = Counter()
        self.closing = threading.Event()

    def open(self) -> None:
        for left_over in (self.tmp, self.storage / ".deleted"):
            shutil.rmtree(left_over, ignore_errors=True)
            left_over.mkdir(parents=True)
        self.snapshots.mkdir(parents=True, exist_ok=True)
        (self.storage / "aliases").mkdir(exist_ok=True)
        self.peer = self.read_peer()
        self.aliases: dict[str, str] = read_json(self.alias_file, {})
        for folder in sorted((self.storage / "collections").glob("*")):
            self.open_collection(folder)
        threading.Thread(target=self.flush_until_closed, daemon=True).start()

    def read_peer(self) -> int:
        path = self.storage / "raft_state.json"
        state = read_json(path)
        if state is None:
            state = {"this_peer_id": secrets.randbelow(1 << 53)}
            write_json(path, state)
        return state["this_peer_id"]

    def open_collection(self, folder: Path) -> None:
        config = read_json(folder / "config.json")
        if config is None:
            shutil.rmtree(folder)  # its creation was cut off, so nobody was told that it exists
            return
        collection = Collection(folder.name, folder, config, self.peer)
        collection.open()
        self.collections[folder.name] = collection

    def flush_until_closed(self) -> None:
        """Every second look, flush each collection as often as its settings say."""
        second = 0
        while not self.closing.wait(1):
            second += 1
            for collection in list(self.collections.values()):
                if second % max(1, collection.config["optimizer_config"]["flush_interval_sec"]) == 0:
                    for shard in collection.shards.values():
                        shard.flush_quietly()

    def close(self) -> None:
        self.closing.set()
        for collection in self.collections.values():
            collection.close("the server is shutting down")

    # ---- collections ----

    def collection(self, name: str) -> Collection:
        """By name or alias."""
        found = self.collections.get(self.aliases.get(name, name))
        if found is None:
            raise no_collection(name)
        return found

    def real_name(self, name: str) -> str:
        return self.aliases.get(name, name)

    def create(self, name: str, config: Json) -> Collection:
        if not name or len(name) > 255 or name in (".", "..") or "/" in name or "\0" in name:
            raise bad_request(f"`{name}` is not a name for a collection")
        with self.lock:
            if name in self.collections or name in self.aliases:
                raise collection_exists(name)
            collection = Collection(name, self.storage / "collections" / name, config, self.peer)
            collection.create()
            self.collections[name] = collection
            return collection

    def delete(self, name: str) -> bool:
        with self.lock:
            name = self.real_name(name)
            collection = self.collections.pop(name, None)
            if collection is None:
                return False
            remaining = {alias: target for alias, target in self.aliases.items() if target != name}
            if remaining != self.aliases:
                self.save_aliases(remaining)
            collection.close(f"Collection `{name}` was deleted")
            away = temporary(self.storage / ".deleted", name)
            collection.folder.rename(away)
        shutil.rmtree(away, ignore_errors=True)
        return True

    # ---- aliases ----

    @property
    def alias_file(self) -> Path:
        return self.storage / "aliases" / "data.json"

    def save_aliases(self, aliases: dict[str, str]) -> None:
        write_json(self.alias_file, aliases)
        self.aliases = aliases

    def change_aliases(self, actions: list[Json]) -> None:
        with self.lock:
            aliases = dict(self.aliases)
            for action in actions:
                self.change_alias(aliases, action)
            self.save_aliases(aliases)

    def change_alias(self, aliases: dict[str, str], action: Json) -> None:
        if "create_alias" in action:
            one = action["create_alias"]
            if one["collection_name"] not in self.collections:
                raise no_collection(one["collection_name"])
            if one["alias_name"] in self.collections:
                raise collection_exists(one["alias_name"])
            aliases[one["alias_name"]] = one["collection_name"]
        elif "delete_alias" in action:
            aliases.pop(action["delete_alias"]["alias_name"], None)
        elif "rename_alias" in action:
            one = action["rename_alias"]
            if one["old_alias_name"] not in aliases:
                raise wrong_input(f"Alias {one['old_alias_name']} does not exist!")
            aliases[one["new_alias_name"]] = aliases.pop(one["old_alias_name"])
        else:
            raise bad_request(f"unknown alias action {sorted(action)}")
