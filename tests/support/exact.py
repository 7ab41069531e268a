"""Mel filters whose product does not depend on how many frames are computed at a time.

On some processors BLAS adds in another order for another count, and the last bit of a feature may
decide a word of the demo model. In double precision the order does not show.
"""

from typing import Any

import numpy as np


class ExactFilters(np.ndarray[Any, Any]):
    def __matmul__(self, power: Any) -> Any:
        return (np.asarray(self, np.float64) @ power.astype(np.float64)).astype(np.float32)


def make_exact(extractor: Any) -> None:
    extractor.mel_filters = extractor.mel_filters.view(ExactFilters)
