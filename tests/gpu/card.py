"""The GPU as nvidia-smi shows it, from outside the workers."""

import os
import shutil
import subprocess
import time

# Memory that the driver itself may take or release meanwhile, in MiB.
SLACK_MIB = 64


class Card:
    """The device `cuda`, or `cpu`, which stands for a card without memory."""

    def __init__(self, device: str) -> None:
        """Raises FileNotFoundError if nvidia-smi is needed and there is none."""
        self.real = device == "cuda"
        places = f"{os.environ.get('PATH', '')}:/usr/local/nvidia/bin:/usr/lib/wsl/lib"
        self._program = shutil.which("nvidia-smi", path=places) or ""
        if self.real and not self._program:
            raise FileNotFoundError("nvidia-smi")

    def describe(self) -> str:
        return self._ask("name,driver_version,memory.total,compute_cap") if self.real else "none"

    def used_mib(self) -> int:
        return int(self._ask("memory.used")) if self.real else 0

    def used_mib_after(self, before: int, patience: float = 10) -> int:
        """Waits until at most `before` is used, or `patience` is over. Returns the use."""
        deadline = time.monotonic() + patience
        while (used := self.used_mib()) > before + SLACK_MIB and time.monotonic() < deadline:
            time.sleep(0.1)
        return used

    def _ask(self, fields: str) -> str:
        argv = [self._program, "-i", os.environ.get("ASRD_GPU", "0")]
        argv += [f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.splitlines()[0]
