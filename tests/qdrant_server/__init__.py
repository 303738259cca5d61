"""Qdrant's HTTP API on Qdrant's own storage engine, for the end-to-end tests and the demo.

    python -m qdrant_server --port 6333 --storage DIR [--snapshots DIR] [--api-key-env VARIABLE]

There is no Qdrant server in a package registry. The wheel `qdrant-edge-py` is Qdrant's storage engine as a library, so
this package puts the server around it. README.md says which behaviour is whose.

What it promises: an operation that was answered survives SIGKILL of this process, because the engine has written it to
its log before the answer; not a power loss, because nothing here calls fsync between the engine's flushes. What it
answered a real Qdrant 1.18.3 in tests/qdrant_server/recordings/ it answers too; tests/test_qdrant_server.py replays
them. After a crash the next start removes half-made collections and temporary files, and a collection whose shard was
being replaced comes up without data and answers 500, as the real server's does.
"""
