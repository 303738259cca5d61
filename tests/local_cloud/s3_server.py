"""A real S3 server, versitygw, on a folder. Clients do not talk to it but to the proxy in front of it (s3_proxy.py)."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from pathlib import Path

from .processes import free_port
from .waiting import wait_for


class S3Server:
    def __init__(
        self,
        program: Path,
        folder: Path,
        log: Path,
        environment: dict[str, str],
        access_log: Path | None = None,
    ) -> None:
        """`environment` carries the marker. The keys are new each time and stay off the command line. The access log
        gets a line for each request.
        """
        if not program.is_file():
            raise FileNotFoundError(f"{program} is missing; run tests/setup")
        self.port, self.folder = free_port(), folder / "objects"
        self.access_key, self.secret_key = f"AKIA{secrets.token_hex(8).upper()}", secrets.token_hex(20)
        versions, metadata = folder / "versions", folder / "metadata"
        for needed in (self.folder, versions, metadata):
            needed.mkdir(parents=True)
        sidecar = [] if extended_attributes(self.folder) else ["--sidecar", str(metadata)]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    str(program),
                    "--port",
                    f"127.0.0.1:{self.port}",
                    *(["--access-log", str(access_log)] if access_log else []),
                    "posix",
                    "--versioning-dir",
                    str(versions),
                    *sidecar,
                    str(self.folder),
                ],
                env={
                    **environment,
                    "ROOT_ACCESS_KEY": self.access_key,
                    "ROOT_SECRET_KEY": self.secret_key,
                    "VGW_QUIET": "true",
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        wait_for(f"the S3 server (its log is {log})", self._answers)

    @property
    def pid(self) -> int:
        return self._process.pid

    def size_of(self, bucket: str, key: str) -> int:
        try:
            return (self.folder / bucket / key).stat().st_size
        except OSError:
            return 0

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"the S3 server ended with code {self._process.returncode}; see its log")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def extended_attributes(folder: Path) -> bool:
    """Can the server keep an object's metadata at its file?"""
    try:
        os.setxattr(folder, "user.local_cloud", b"1")
    except OSError:
        return False
    os.removexattr(folder, "user.local_cloud")
    return True
