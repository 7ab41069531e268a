"""The GPU as seen from outside of every worker: what nvidia-smi says."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

# What the driver itself may take or give back beside us, in MiB.
SLACK_MIB = 64


@dataclass(frozen=True, slots=True)
class Memory:
    """`of_us`: per process id, as far as the driver tells (a container may hide it). In MiB."""

    used: int
    total: int
    of_us: dict[int, int]


class Card:
    def __init__(self) -> None:
        """Raises FileNotFoundError where there is no nvidia-smi."""
        places = f"{os.environ.get('PATH', '')}:/usr/local/nvidia/bin:/usr/lib/wsl/lib"
        found = shutil.which("nvidia-smi", path=places)
        if found is None:
            raise FileNotFoundError("nvidia-smi")
        self._program = found

    def describe(self) -> str:
        return ", ".join(self._ask("gpu", "name,driver_version,memory.total,compute_cap")[0])

    def memory(self) -> Memory:
        ((used, total),) = self._ask("gpu", "memory.used,memory.total")
        apps = self._ask("compute-apps", "pid,used_memory")
        of_us = {int(pid): int(mib) for pid, mib in apps if mib.isdecimal()}
        return Memory(int(used), int(total), of_us)

    def settle(self, wanted: Callable[[Memory], bool], patience: float = 10) -> Memory:
        """The memory as soon as it is as wanted, else as it is in the end."""
        deadline = time.monotonic() + patience
        while not wanted(memory := self.memory()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return memory

    def _ask(self, what: str, fields: str) -> list[list[str]]:
        """The first card's rows."""
        card = os.environ.get("ASRD_GPU", "0")
        query = [f"--query-{what}={fields}", "--format=csv,noheader,nounits"]
        answer = subprocess.run(
            [self._program, "-i", card, *query],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return [line.split(", ") for line in answer.stdout.splitlines()]
