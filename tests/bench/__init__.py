"""The benchmark of the archive engine: `make bench`, or `python -m bench` in tests/ once everything is built.

Perennial and other systems do the same work on the same data against the same local S3 server, in turn, round by round.
"""
