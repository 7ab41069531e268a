"""JSON by orjson, or by the standard library, equally strict, if orjson is not installed.

Debian 12 has no package of orjson, and python3-asrd must not contain compiled code.
"""

import json
import math
from collections.abc import Callable
from typing import Any, NoReturn

__all__ = ["dumps", "loads"]


def plain_dumps(value: Any) -> bytes:
    """Raises ValueError or TypeError for values that JSON does not have."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode()


def plain_loads(raw: bytes) -> Any:
    """Raises ValueError, also for NaN and for invalid UTF-8."""
    value = json.loads(
        raw.decode(), parse_float=_finite, parse_int=_integer, parse_constant=_refuse
    )
    if b"\\u" in raw:
        # Refuses half of a surrogate pair, which can't be written again.
        plain_dumps(value)
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _refuse(digits)


def _integer(digits: str) -> int | float:
    value = int(digits)
    # The range of orjson.
    return value if -(1 << 63) <= value < 1 << 64 else _finite(digits)


dumps: Callable[[Any], bytes]
loads: Callable[[bytes], Any]
try:
    import orjson
except ModuleNotFoundError:
    dumps, loads = plain_dumps, plain_loads
else:
    dumps, loads = orjson.dumps, orjson.loads
