"""The names of a request's fields, as its client wrote them. Pure."""

import re
from collections.abc import Iterable

# `languages[]`, `languages[0]`, `vad_parameters[threshold]`: a name, and perhaps a member's.
NAME = re.compile(r"([^\[\]]+)(?:\[([^\[\]]*)\])?")
# Options of the daemon that also come from a field with another name.
_FROM = {
    "initial_prompt": "prompt",
    "hotwords": "keywords",
    "vad_parameters": "chunking_strategy",
}
# Parts of the daemon's request that always do.
_ALWAYS = {"name": "model", "audio": "file"}


class Names:
    """The fields of one request."""

    def __init__(self, sent: Iterable[str] = ()) -> None:
        self._sent: dict[str | None, str] = {}
        for name in sent:
            parts = NAME.fullmatch(name)
            if parts is not None:
                self._sent.setdefault(parts[1], name)
                self._sent.setdefault(f"{parts[1]}.{parts[2]}", name)

    def sent(self, option: str) -> str:
        """Returns the client's name for a field or an option, `vad_parameters.threshold`."""
        base, _, member = option.partition(".")
        for name in (option, base, member, _FROM.get(base)):
            if name in self._sent:
                return self._sent[name]
        return _ALWAYS.get(base, base)
