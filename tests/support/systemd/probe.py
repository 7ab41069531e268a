"""A program that runs in a worker's sandbox and prints, as JSON, the resources within its reach."""

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path


def attempt(action: Callable[[], object]) -> str:
    try:
        return str(action())
    except OSError as error:
        return type(error).__name__


def unix(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)


def names(path: str) -> list[str]:
    return sorted(entry.name for entry in Path(path).iterdir())


def memory(pid: int) -> bytes:
    with open(f"/proc/{pid}/mem", "rb") as file:
        return file.read(0)


def others() -> list[int]:
    found = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())
    return sorted(pid for pid in found if pid != os.getpid())


def main() -> None:
    front, worker = map(int, sys.argv[1:3])
    reach = {
        "internet": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)),
        "internet 6": attempt(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)),
        "netlink": attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
        "interfaces": attempt(lambda: names("/sys/class/net")),
        "home": attempt(lambda: names("/home")),
        "root's home": attempt(lambda: names("/root")),
        "other processes": attempt(others),
        "signal to the front": attempt(lambda: os.kill(front, 0)),
        "signal to a worker": attempt(lambda: os.kill(worker, 0)),
        "memory of a worker": attempt(lambda: memory(worker)),
        "a worker's socket": attempt(lambda: unix("/run/asrd/worker/0.sock")),
        "the clients' socket": attempt(lambda: unix("/run/asrd/asrd.sock")),
        "write to /var/lib": attempt(lambda: Path("/var/lib/asrd/models/x").write_text("")),
        "write to /etc": attempt(lambda: Path("/etc/asrd/x").write_text("")),
        "write to its cache": attempt(
            lambda: Path(os.environ["CUDA_CACHE_PATH"], "x").write_text("")
        ),
        "user": attempt(os.geteuid),
    }
    print("PROBE" + json.dumps(reach), flush=True)


if __name__ == "__main__":
    main()
