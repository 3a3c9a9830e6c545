"""Who owns a lease, and whether that process is still alive: known only of processes of this host."""

import os
import socket
from functools import cache
from pathlib import Path

_PROC = Path("/proc")


def this_owner() -> str:
    """This process, by host, process id and the time it was started, for ids are used again."""
    return f"{_host()}:{os.getpid()}:{_started(os.getpid()) or ''}"


def is_gone(owner: str) -> bool:
    """Is the owner certainly dead? Of another host, or another container, that cannot be told."""
    host, pid, started = ("::" + owner).rsplit(":", 2)
    if host.removeprefix("::") != _host() or os.name != "posix" or not pid.isdecimal():
        return False
    now = _started(int(pid))
    return now != started if _PROC.is_dir() else not _exists(int(pid))


@cache
def _host() -> str:
    """This boot of this host, and this container of it."""
    boot = _PROC / "sys/kernel/random/boot_id"
    space = _PROC / "self/ns/pid"
    return "/".join((socket.gethostname(), boot.read_text().strip() if boot.exists() else "", _link(space)))


def _link(path: Path) -> str:
    return os.readlink(path) if path.is_symlink() else ""


def _started(pid: int) -> str | None:
    """When a process was started, in ticks since boot; None if there is none of this id."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in brackets, and may hold anything; a zombie (Z) no longer runs.
    state, *rest = stat.rpartition(")")[2].split()
    return None if state == "Z" else rest[18]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
