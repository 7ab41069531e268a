"""Which dataclass stands for an event's type."""

from collections.abc import Mapping
from typing import Any

from asrd.wire.fields import parse


def by_type(*classes: type) -> dict[str, type]:
    return {cls.TYPE: cls for cls in classes}  # type: ignore[attr-defined]


def parse_event(table: Mapping[str, type], kind: str, data: Mapping[str, Any]) -> Any:
    """The event's dataclass, or None for a type that is not in `table` (to be ignored).

    Raises FieldError naming the field.
    """
    cls = table.get(kind)
    return None if cls is None else parse(cls, data)
