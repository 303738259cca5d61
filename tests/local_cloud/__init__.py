"""A local AWS for end-to-end tests and the demo: see README.md beside this file."""

from .cloud import LocalCloud
from .timing import Timing
from .waiting import refusal, wait_for

__all__ = ["LocalCloud", "Timing", "refusal", "wait_for"]
