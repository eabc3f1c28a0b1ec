"""Which computer uses a store: SQLite's journal is shared memory, which two computers on one network file system don't share.

Every process has a lease, a file beside the store, which it touches while it lives. Processes of one computer use a store
together; a lease of another computer refuses it, until it is given back or nobody has touched it for a while.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import uuid
from contextlib import ExitStack, suppress
from pathlib import Path

from evalkit.errors import EvalkitError
from evalkit.interruption import scratch
from evalkit.output.files import replace_file

TOUCH_SECONDS = 15.0
LEASE_SECONDS = 120.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Lease:
    """A process's lease of a store, held from `take` to `give_back`."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._file = store.with_name(f"{store.name}.lease-{uuid.uuid4().hex}")
        self._held = ExitStack()

    def take(self) -> None:
        """Take the lease, or take it again where it was lost, as after a pause. Raises EvalkitError as `refuse_other_host` does.

        Raises OSError where it can't be written.
        """
        if self._file.exists():
            return
        self._held.close()
        self._held.enter_context(scratch(self._file))
        host, boot = this_host()
        replace_file(self._file, json.dumps({"host": host, "boot": boot, "process": os.getpid()}).encode())
        try:
            refuse_other_host(self._store)  # after its own is there: of two that come at once, one sees the other
        except EvalkitError:
            self.give_back()
            raise
        over = threading.Event()
        self._held.callback(over.set)
        threading.Thread(target=self._keep, args=(over,), name="evalkit-lease", daemon=True).start()

    def give_back(self) -> None:
        """Delete the lease."""
        self._held.close()

    def _keep(self, over: threading.Event) -> None:
        while not over.wait(TOUCH_SECONDS):
            with suppress(OSError):
                os.utime(self._file)


def refuse_other_host(store: Path) -> None:
    """Raise EvalkitError where another computer uses the store. Leases that have run out are deleted.

    Ages are differences between times that the file system gives, so that no two computers' clocks are compared.
    """
    leases = list(store.parent.glob(f"{store.name}.lease-*"))
    if not leases:
        return
    now = _file_system_time(store)
    for lease in leases:
        with suppress(FileNotFoundError):
            host, boot, process = _read(lease)
            age = now - lease.stat().st_mtime
            if (boot or host) == (this_host()[1] or this_host()[0]):
                if not _lives(process):
                    lease.unlink()
            elif age > LEASE_SECONDS:
                lease.unlink()
            else:
                raise EvalkitError(
                    f"{store} is in use by another computer, {host} (process {process}, seen {max(age, 0):.0f} s ago), and two "
                    f"can't share one over a network file system. Choose another folder with cache_dir=FOLDER, or wait: a "
                    f"lease ends with its run, or {LEASE_SECONDS:.0f} s after its computer was last seen. If nothing runs there, "
                    f"delete {lease}"
                )


def this_host() -> tuple[str, str]:
    """Return this computer's name, and what tells its present run from all others, "" where the system does not say."""
    try:
        boot = BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    return platform.node(), boot


def _read(lease: Path) -> tuple[str, str, int]:
    """Return the host, its boot and the process of a lease; of one that can't be read, one that nobody is."""
    try:
        content = json.loads(lease.read_text(encoding="utf-8"))
        return str(content["host"]), str(content["boot"]), int(content["process"])
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, KeyError):
        return "an unknown one", "unknown", 0


def _file_system_time(store: Path) -> float:
    probe = store.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with scratch(probe):
            probe.touch()
            return probe.stat().st_mtime
    except OSError as error:
        raise EvalkitError(
            f"{store.parent} can't be written ({error.strerror}), and another computer may be using the store in it; choose "
            "another folder with cache_dir=FOLDER, or cache=off"
        ) from error


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
