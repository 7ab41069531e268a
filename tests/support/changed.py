"""`asrd run` whose workers are changed before they start, as no setting of asrd can do it.

    python -m tests.support.changed MODULE run ...

The processes that `asrd run` starts take no code from the environment. So this starts it with
workers that are `python -m MODULE NAME`; MODULE changes what it wants to, and calls `start_worker`.
"""

import os
import sys
from unittest import mock

from asrd import main
from asrd.standalone import pool
from asrd.standalone.programs import program
from asrd.worker.main import main as worker_main


def start_worker() -> int:
    # As asrd.standalone.child does.
    os.environ["LISTEN_PID"] = str(os.getpid())
    return worker_main()


def _run_with_workers(worker: str, arguments: list[str]) -> int:
    def changed(module: str, *words: str) -> list[str]:
        if module == "asrd.worker.main":
            return [sys.executable, "-m", worker, *words]
        return program(module, *words)

    with mock.patch.object(pool, "program", changed):
        return main.main(arguments)


if __name__ == "__main__":
    sys.exit(_run_with_workers(sys.argv[1], sys.argv[2:]))
