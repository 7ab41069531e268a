"""The end of a process in words, those of systemd/restart-backoff."""

import re
import signal
from pathlib import Path

_VMSTAT = Path("/proc/vmstat")


def description(code: int, watchdog: bool = False, oom: bool = False) -> str:
    """Returns `exited with 1` or `killed by SIGSEGV`. `code` is negative for a signal; `oom`: the
    kernel has killed a process meanwhile because memory ran out, which is only a hint."""
    if code >= 0:
        return f"exited with {code}"
    try:
        how = f"killed by {signal.Signals(-code).name}"
    except ValueError:
        how = f"killed by signal {-code}"
    if watchdog:
        return f"{how} (watchdog)"
    return f"{how}, perhaps out of memory" if oom and -code == signal.SIGKILL else how


def oom_kills() -> int:
    """Returns the number of processes that the kernel has killed because memory ran out."""
    try:
        found = re.search(r"^oom_kill (\d+)$", _VMSTAT.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0
