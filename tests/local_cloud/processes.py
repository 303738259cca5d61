"""Processes and ports of a local cloud.

Every process carries a marker in its environment, which its children inherit, daemons included; killing goes by that
marker. A reaper process holds the reading end of a pipe: when the program that owns the cloud ends, in whatever way,
the pipe closes and the reaper kills what is left. So a crashed or killed test run leaves no process behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PORTS_PER_BLOCK = 10


def marked(name: str, value: str) -> list[int]:
    """The processes with name=value in their environment."""
    wanted, found = f"{name}={value}".encode(), []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                environment = Path(entry.path, "environ").read_bytes()
            except OSError:  # gone, or somebody else's
                continue
            if wanted in environment.split(b"\0"):
                found.append(int(entry.name))
    return found


def kill_marked(name: str, value: str, limit: float = 5) -> None:
    """Kill until none is left: a process may have forked between the look and the kill."""
    end = time.monotonic() + limit
    while (pids := marked(name, value)) and time.monotonic() < end:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.01)
    if pids:
        raise RuntimeError(f"processes {pids} survived SIGKILL for {limit} s")


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def is_free(host: str, port: int) -> bool:
    """Free on that address, for a listener that does not share it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


class PortBlock:
    """Ten consecutive ports, free on every address, and kept from other clouds by a listener on the last one."""

    def __init__(self) -> None:
        # Below the range from which the kernel takes the ports of outgoing connections.
        for base in range(12000 + os.getpid() % 500 * 30, 32000, PORTS_PER_BLOCK):
            guard = socket.socket()
            try:
                guard.bind(("127.0.0.1", base + PORTS_PER_BLOCK - 1))
                guard.listen(1)
            except OSError:
                guard.close()
                continue
            if all(is_free("0.0.0.0", base + n) for n in range(PORTS_PER_BLOCK - 1)):
                self.base, self._guard = base, guard
                return
            guard.close()
        raise RuntimeError("no ten consecutive free ports below 32000; are instances of an earlier run alive?")

    def release(self) -> None:
        self._guard.close()


class Reaper:
    """Watches the pipe; see the head of this module."""

    def __init__(self, name: str, value: str, folder: Path | None) -> None:
        command = [sys.executable, "-S", "-E", __file__, name, value, *([str(folder)] if folder else [])]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, cwd="/")

    def stop(self) -> None:
        """Let it do its work now: after this every marked process is dead and the folder, if it was ours, is gone."""
        self._process.stdin.close()
        self._process.wait()


def reap(name: str, value: str, *folders: str) -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    sys.stdin.buffer.read()
    kill_marked(name, value)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    reap(*sys.argv[1:])
