"""Kills worker 0 whenever it is ready, inside the machine.

crash.py COUNT
"""

import os
import signal
import sys
import time

sys.path.append("/usr/lib/asrd/vendor")

from asrd.client.client import Client


def main() -> None:
    left, killed = int(sys.argv[1]), 0
    deadline = time.monotonic() + 600
    with Client("/run/asrd/status.sock") as client:
        while left and time.monotonic() < deadline:
            (worker,) = client.status()["workers"]
            if worker["state"] in ("ready", "busy") and worker["pid"] != killed:
                killed = worker["pid"]
                os.kill(killed, signal.SIGKILL)
                left -= 1
            else:
                time.sleep(0.005)
    sys.exit(bool(left))


if __name__ == "__main__":
    main()
