"""Objects that belong to the process that made them.

A forked child has copies of all descriptors. If it read from its parent's connection, it would take
the parent's answers. If it shut the connection down, it would cancel the parent's jobs. While it
keeps its copies open, the daemon can't notice that the parent has closed its own. So a new child
closes its copies at once, which has no effect on the connection itself.
"""

import contextlib
import os
import weakref
from abc import ABC, abstractmethod
from typing import NoReturn


class OfOneProcess(ABC):
    """A base class for owners of descriptors. Subclasses call `__init__` when `leave` can run."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        _alive.add(self)

    @property
    def inherited(self) -> bool:
        """True if this process was forked from the one that made the object."""
        # Not only a flag: the garbage collector may run in a child before `_leave_all`.
        return os.getpid() != self._pid

    def refuse_if_inherited(self) -> None:
        if self.inherited:
            name = type(self).__name__
            raise RuntimeError(
                f"this {name} belongs to the parent process: make another one in this process"
            )

    @abstractmethod
    def leave(self) -> None:
        """Closes this child's copies of the descriptors, without any effect on the parent."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} belongs to one process: it can't be copied")


_alive: weakref.WeakSet[OfOneProcess] = weakref.WeakSet()


def _leave_all() -> None:
    inherited = list(_alive)
    _alive.clear()
    for each in inherited:
        # In another PID namespace, a child may have the same number as its parent.
        each._pid = -1
        # Another hook may have closed all descriptors.
        with contextlib.suppress(OSError):
            each.leave()


os.register_at_fork(after_in_child=_leave_all)
