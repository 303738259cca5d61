"""A simulated instance: a folder, ten ports, an environment, and every process that carries its marker.

Powering off kills the processes and deletes the folder, as the NVMe disks of an instance lose their data. What the test
may want to read afterwards (console output, logs) is in the cloud's log folder instead.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from .processes import PortBlock, kill_marked

MARKER = "LOCAL_CLOUD_INSTANCE"
TESTS = Path(__file__).resolve().parents[1]


class Machine:
    def __init__(self, cloud, instance) -> None:
        self.cloud, self.instance, self.id = cloud, instance, instance.id
        self.agent_runs, self.was_online, self.up_since = True, False, None
        self.lets_go = True  # of an interface that is detached without force
        self.configured: set[str] = set()  # private addresses that its system answers at, besides its own
        self.folder = cloud.workdir / "instances" / self.id
        self.logs = cloud.logs
        self.ports: PortBlock | None = None
        self.env: dict[str, str] = {}

    # ---- power -------------------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Fresh disks, then the user data."""
        for name in ("bin", "data", "state", "tmp"):
            (self.folder / name).mkdir(parents=True)
        self.ports = PortBlock()
        for program in self.cloud.programs:
            (self.folder / "bin" / program.name).symlink_to(program)
        self.env = self._environment()
        self.up_since = time.monotonic()
        if self.instance.user_data:
            threading.Thread(target=self._run_user_data, args=(self.instance.user_data.decode(),), daemon=True).start()

    def power_off(self) -> None:
        self.up_since = None
        self.configured.clear()
        kill_marked(MARKER, self.id)
        if self.ports:
            self.ports.release()
            self.ports = None
        if self.folder.exists():
            grave = self.folder.with_name(f".{self.id}-{uuid.uuid4().hex[:8]}")
            self.folder.rename(grave)  # gone at once; the deletion itself may take its time
            threading.Thread(target=shutil.rmtree, args=(grave, True), daemon=True).start()

    def _run_user_data(self, text: str) -> None:
        script = self.folder / "user-data"
        script.write_text(text)
        script.chmod(0o700)
        command = [str(script)] if text.startswith("#!") else ["/bin/sh", str(script)]
        with (self.logs / f"{self.id}-console.log").open("ab") as console:
            self._start(command, console, console, {}).wait()

    # ---- what an instance is -----------------------------------------------------------------------------------------

    def _environment(self) -> dict[str, str]:
        cloud, base = self.cloud, self.ports.base
        return {
            "PATH": f"{self.folder / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder / "tmp"),
            "LANG": "C.UTF-8",
            cloud.MARKER: cloud.id,
            MARKER: self.id,
            "LOCAL_CLOUD_PORTS": str(base),
            "LOCAL_CLOUD_LOGS": str(self.logs),
            "LOCAL_CLOUD_PYTHON": sys.executable,
            "LOCAL_CLOUD_TESTS": str(TESTS),
            **cloud.client_environment(caller=self.id),
            "PERENNIAL_INSTANCE_ID": self.id,
            "PERENNIAL_STATE_DIR": str(self.folder / "state"),
            "PERENNIAL_DATA_DIR": str(self.folder / "data"),
            "PERENNIAL_ENGINE_URL": f"{cloud.engine.scheme}://127.0.0.1:{base}",
            **cloud.instance_env,
        }

    @property
    def engine_port(self) -> int | None:
        """Where the engine listens on this machine; the stable address leads here."""
        return self.ports.base if self.ports else None

    @property
    def state(self) -> str:
        return self.instance._state.name

    @property
    def online(self) -> bool:
        """Is the SSM agent registered and answering?"""
        up = (
            self.agent_runs
            and self.up_since is not None
            and self.state == "running"
            and time.monotonic() - self.up_since >= self.cloud.timing.ssm_register
        )
        self.was_online = self.was_online or up
        return up

    # ---- running things ----------------------------------------------------------------------------------------------

    def run(
        self,
        text: str,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> tuple[int | None, str, str]:
        """Run a shell script as the instance's SSM agent does: exit code, stdout, stderr. None: out of time, stopped,
        or powered off.
        """
        base = self.folder / "tmp" / f"run-{uuid.uuid4().hex[:8]}"
        script, out, err = (base.with_suffix(suffix) for suffix in (".sh", ".out", ".err"))
        with ExitStack() as files:
            try:
                script.write_text(text)
                sinks = [files.enter_context(path.open("wb")) for path in (out, err)]
                sources = [
                    files.enter_context(path.open("rb")) for path in (out, err)
                ]  # now: the folder may be gone at the end
                process = self._start(["/bin/sh", str(script)], *sinks, env or {})
            except FileNotFoundError:  # the folder went away: powered off
                return None, "", ""
            code = self._wait(process, timeout, stop)
            return code, *(source.read().decode("utf-8", "replace") for source in sources)

    def _wait(self, process: subprocess.Popen, timeout: float, stop: Callable[[], bool]) -> int | None:
        end = time.monotonic() + timeout
        while process.poll() is None and time.monotonic() < end and not stop():
            time.sleep(0.02)
        code = process.poll()
        if code is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return code if self.up_since is not None else None

    def start(self, *command: str, env: Mapping[str, str] | None = None) -> subprocess.Popen:
        """Start a program and leave it running; its output goes to the log folder."""
        with (self.logs / f"{self.id}-{Path(command[0]).name}.log").open("ab") as log:
            return self._start(list(command), log, log, env or {})

    def _start(self, command: list[str], stdout, stderr, env: Mapping[str, str]) -> subprocess.Popen:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**self.env, **env},
            start_new_session=True,
        )
