"""A disk that fills up: a small file system of its own, or a limit for every file where none can be mounted."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

OWN_MOUNTS = "STORM_OWN_MOUNTS"     # set in a process whose mounts nobody else sees
SEPARATE = ("unshare", "--user", "--map-root-user", "--mount")


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """In this process a write beyond `size` bytes of a file fails as on a full disk, whatever library writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.getsignal(signal.SIGXFSZ)
    limit_files(size)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def limit_files(size: int) -> None:
    """From here on a write beyond `size` bytes of a file fails in this process."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def with_own_mounts() -> None:
    """Start this program again where it may mount file systems that only it sees, if the machine allows that."""
    if OWN_MOUNTS in os.environ or not can_mount():
        return
    command = [*SEPARATE, sys.executable, *sys.orig_argv[1:]]
    os.execvpe(command[0], command, {**os.environ, OWN_MOUNTS: "1"})


def can_mount() -> bool:
    """Whether this machine lets anybody mount a file system of its own."""
    if OWN_MOUNTS in os.environ:
        return True
    if shutil.which(SEPARATE[0]) is None or shutil.which("mount") is None:
        return False
    test = subprocess.run([*SEPARATE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    return test.returncode == 0


@contextmanager
def small_file_system(folder: Path, size: int) -> Iterator[None]:
    """A new file system of `size` bytes in a folder, which has to be empty and is so again afterwards."""
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def make_room(folder: Path, size: int) -> None:
    """Let a file system of `small_file_system` grow."""
    _mount("-o", f"remount,size={size}", str(folder))


def used(folder: Path) -> int:
    """The bytes that the files of a folder take on a file system with pages of 4 kB."""
    taken = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            taken += -(-path.lstat().st_size // 4096) * 4096 or 4096
    return taken


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)
