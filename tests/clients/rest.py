"""Calls of a REST API, for the clients of the engines that have one."""

from __future__ import annotations

import requests

from .client import CONNECT, Refused


class Rest:
    def __init__(self, url: str, headers: dict[str, str], timeout: float) -> None:
        self._url, self._timeout, self._session = url, timeout, requests.Session()
        self._session.trust_env = False  # no proxy between here and this machine
        self._session.headers.update(headers)

    def answers(self, path: str) -> bool:
        """Whether it says 200 there."""
        try:
            return self._session.get(self._url + path, timeout=(CONNECT, self._timeout)).status_code == 200
        except requests.RequestException:
            return False

    def call(self, method: str, path: str, body: object = None) -> object:
        what = f"{method} {path.partition('?')[0]}"
        try:
            answer = self._session.request(method, self._url + path, json=body, timeout=(CONNECT, self._timeout))
        except requests.RequestException as error:
            raise Refused(f"{what}: {type(error).__name__}") from error
        if not answer.ok:
            raise Refused(f"{what}: {answer.status_code} {answer.text[:300]}")
        return answer.json() if answer.content else None
