"""ASRD_DEBUG=wire: a line on stderr for each event that a client sends or receives.

Types, sizes and names, never what was said.
"""

import os
import sys
from contextlib import suppress
from typing import Any

from asrd.wire import strict_json
from asrd.wire.frames import Frame

ENABLED = "wire" in os.environ.get("ASRD_DEBUG", "").split(",")


def sent(kind: str, data: dict[str, Any], fds: int) -> None:
    if ENABLED:
        _write(">", kind, data, 0, fds)


def received(event: Frame) -> None:
    if ENABLED:
        _write("<", event.type, event.data, event.payload_length, len(event.fds))


def _write(arrow: str, kind: str, data: dict[str, Any], payload: int, fds: int) -> None:
    size = len(strict_json.dumps(data))
    # A trace that nobody can read is no reason to give the job up.
    with suppress(OSError):
        sys.stderr.write(
            f"asrd wire {arrow} {kind!r} job_id={data.get('job_id')!r} "
            f"data={size} payload={payload} fds={fds}\n"
        )
