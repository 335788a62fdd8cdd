"""How much of the machine this process may use: cores and memory that its cgroups, its affinity and the hardware grant.

A container sees all cores of its host, and threads beyond its quota make it stand still for the rest of each period. Limits
hold at every level between a process and the root of its hierarchy; the tightest counts. Sources: cgroups(7),
Documentation/admin-guide/cgroup-v2.rst (cpu.max, memory.max), cgroup-v1 (cpu.cfs_quota_us, memory.limit_in_bytes) and
proc(5) for /proc/self/cgroup and /proc/self/mountinfo.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_OCTAL: Final = re.compile(r"\\([0-7]{3})")


class Machine(NamedTuple):
    """What this process may use.

    Attributes
    ----------
    cores : float
        CPU time a second: the tightest of quota and affinity, which a quota may make a fraction.
    memory_bytes : int
        The tightest of cgroup limits and physical memory.
    """

    cores: float
    memory_bytes: int

    @property
    def threads(self) -> int:
        """Threads that compute at once without being held back: whole cores, at least 1.

        Examples
        --------
        >>> Machine(cores=1.5, memory_bytes=2**30).threads, Machine(cores=0.25, memory_bytes=2**30).threads
        (1, 1)
        """
        return max(1, int(self.cores))


def machine(root: Path = Path("/")) -> Machine:
    """What this process may use now.

    Parameters
    ----------
    root : Path
        Where proc and sys are mounted.
    """
    cores, memory = float(_affinity()), _physical_memory()
    for folder in _folders(root, "cpu"):
        cores = min(cores, _quota(folder))
    for folder in _folders(root, "memory"):
        memory = min(memory, _memory_limit(folder) or memory)
    return Machine(cores, memory)


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the process's cgroups that may limit it, from its own to its hierarchy's root; version 2, version 1."""
    paths = _cgroups(root)
    for kind, options, below, mount in _mounts(root):
        path = paths.get("") if kind == "cgroup2" else paths.get(controller) if controller in options else None
        if path is None:
            continue
        start = root / mount.relative_to("/")
        # A mount may show a part of the hierarchy, as inside a container: what lies above or beside it is not to be seen.
        inside = os.path.relpath(path, below) if Path(path).is_relative_to(below) else "."
        folder = start / inside
        yield from (place for place in (folder, *folder.parents) if place.is_relative_to(start))


def _cgroups(root: Path) -> dict[str, str]:
    """The cgroup of this process by controller; "" is version 2."""
    found = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), path))
    return found


def _mounts(root: Path) -> Iterator[tuple[str, list[str], str, Path]]:
    """Mounted hierarchies: kind, options, the part that is mounted, and where."""
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) > 4 and len(kind) > 2 and kind[0] in ("cgroup", "cgroup2"):
            yield kind[0], kind[2].split(","), _plain(fields[3]), Path(_plain(fields[4]))


def _quota(folder: Path) -> float:
    words = _text(folder / "cpu.max").split() or [
        _text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")
    ]
    quota, period = (_number(word) for word in (*words, "")[:2])
    return quota / period if quota and period else float("inf")


def _memory_limit(folder: Path) -> int | None:
    return _number(_text(folder / "memory.max")) or _number(_text(folder / "memory.limit_in_bytes")) or None


def _number(text: str) -> int:
    """A limit; 0 where there is none: `max`, -1, or no such file."""
    return int(text) if text.strip().isdecimal() else 0


def _plain(path: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), path)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
