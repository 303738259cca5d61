"""python -m qdrant_server: see --help."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from .access import Keys
from .api import Api
from .node import Node
from .web import Server


def main() -> int:
    options = arguments()
    node = Node(options.storage, options.snapshots or options.storage / "snapshots")
    node.open()  # as the real one: the port opens when everything is loaded
    keys = Keys(key_from(options.api_key_env), key_from(options.read_only_api_key_env))
    server = Server((options.host, options.port), Api(node, keys).answer)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    if options.until_stdin_closes:
        threading.Thread(target=stop_at_end_of_input, args=[server], daemon=True).start()
    print(f"listening on {options.host}:{server.server_port}", flush=True)
    server.serve_forever()
    node.close()
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m qdrant_server", description="Qdrant's HTTP API on Qdrant's engine."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=6333, help="0 takes a free one; the first line says which")
    parser.add_argument("--storage", type=Path, required=True, help="folder of the data")
    parser.add_argument("--snapshots", type=Path, help="folder of the snapshots; default: STORAGE/snapshots")
    parser.add_argument("--api-key-env", metavar="VARIABLE", help="environment variable with the key for everything")
    parser.add_argument("--read-only-api-key-env", metavar="VARIABLE", help="environment variable with the key to read")
    parser.add_argument(
        "--until-stdin-closes",
        action="store_true",
        help="end with the program that holds the other end of standard input",
    )
    return parser.parse_args()


def stop_at_end_of_input(server: Server) -> None:
    while os.read(0, 4096):  # not sys.stdin: a thread that waits in it aborts the interpreter at its end
        pass
    server.shutdown()


def key_from(variable: str | None) -> str | None:
    """A key that was asked for and is not there would leave the server open."""
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        sys.exit(f"qdrant_server: the environment variable {variable} is not set or empty")
    return key


if __name__ == "__main__":
    sys.exit(main())
