"""API keys: the full one, the read-only one, and what needs which."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Any

from .errors import forbidden
from .web import Reply

OPEN = ("/", "/healthz", "/livez", "/readyz")
MANAGE = "Global manage access is required"


@dataclass(frozen=True)
class Keys:
    full: str | None = None
    read_only: str | None = None

    def refusal(self, path: str, headers: Any) -> Reply | None:
        """The real server's refusals have no content type."""
        if path in OPEN or not (self.full or self.read_only):
            return None
        given = given_key(headers)
        if not given:
            return Reply(401, b"Must provide an API key or an Authorization bearer token")
        if not any(same(given, key) for key in (self.full, self.read_only)):
            return Reply(401, b"Invalid API key or JWT")
        return None

    def check_manage(self, headers: Any, plain: bool) -> None:
        """Only after `refusal` let the request pass."""
        if (self.full or self.read_only) and not same(given_key(headers), self.full):
            raise forbidden(MANAGE, plain)

    def __repr__(self) -> str:  # a key is not for logs
        return "Keys(…)"


def given_key(headers: Any) -> str:
    return headers.get("api-key") or (headers.get("Authorization") or "").removeprefix("Bearer ").strip()


def same(given: str, key: str | None) -> bool:
    return key is not None and hmac.compare_digest(given.encode(), key.encode())
