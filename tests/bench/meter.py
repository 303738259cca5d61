"""Runs one command and measures it and everything it starts: wall and CPU seconds, and the peak of their memory.

`run` starts this file as a small process of its own, because a child's peak memory as the kernel reports it includes
what its parent had when it was forked, and the benchmark's own process is large. The clock starts just before the
command and stops when the last process it started has ended, so this file's own start does not count. Memory is the sum
of what is resident, looked at every 20 ms; for a single process the kernel's own figure is taken when it is higher.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
import threading
import time

PR_SET_CHILD_SUBREAPER = 36
PAUSE = 0.02  # seconds between two looks at memory
LOOKS_PER_SEARCH = 5  # the tree of processes is searched anew only so often
PAGE = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    report, log, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans, such as bash's >(...), are ours to wait for
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    ended, memory = threading.Event(), Memory()
    watcher = threading.Thread(target=memory.watch, args=(ended,))
    watcher.start()
    others = busy_ticks()
    began = time.monotonic()
    first = os.posix_spawnp(
        command[0],
        command,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
        ],
    )
    code = wait_for_all(first)
    seconds = time.monotonic() - began
    ended.set()
    watcher.join()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(report, "w", encoding="utf-8") as file:
        json.dump(
            {
                "code": code,
                "seconds": seconds,
                "cpu_seconds": usage.ru_utime + usage.ru_stime,
                "peak_bytes": max(memory.peak, usage.ru_maxrss * 1024),
                "machine_cpu_seconds": (busy_ticks() - others) / os.sysconf("SC_CLK_TCK"),
            },
            file,
        )


def wait_for_all(first: int) -> int:
    """Until no child is left; the exit code of the first one."""
    code = 0
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            return code
        if pid == first:
            code = os.waitstatus_to_exitcode(status)


def busy_ticks() -> int:
    """What all processors of the machine have worked so far, for whomever."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, file.readline().split()[1:])
    return user + nice + system + irq + softirq


class Memory:
    def __init__(self) -> None:
        self.peak = 0

    def watch(self, ended: threading.Event) -> None:
        me, look, pids = os.getpid(), 0, []
        while not ended.wait(PAUSE):
            if look % LOOKS_PER_SEARCH == 0 or not pids:
                pids = descendants(me)
            look += 1
            self.peak = max(self.peak, sum(map(resident, pids)))


def descendants(pid: int) -> list[int]:
    found = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                children = [int(child) for child in file.read().split()]
            for child in children:
                found += [child, *descendants(child)]
    except OSError:  # it ended meanwhile
        pass
    return found


def resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


if __name__ == "__main__":
    main()
