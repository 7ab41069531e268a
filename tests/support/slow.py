"""A worker that finds its engine's library only after a while."""

import sys
import time
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

from tests.support.changed import start_worker


class _Slowly(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        if name == "ctranslate2":
            time.sleep(1.5)


if __name__ == "__main__":
    sys.meta_path.insert(0, _Slowly())
    sys.exit(start_worker())
