"""A worker whose model never ends its first text.

python -m tests.support.changed tests.support.hanging run ...
"""

import sys
import threading
from typing import Any

from tests.support.changed import start_worker


def _generate(self: object, *args: Any, **options: Any) -> None:
    threading.Event().wait()


if __name__ == "__main__":
    from asrd.engine.spoken import Detecting

    Detecting.generate = _generate  # type: ignore[method-assign]
    sys.exit(start_worker())
