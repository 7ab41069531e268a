"""W3C Trace Context (https://www.w3.org/TR/trace-context/), as far as a last hop needs it. Pure."""

import re
import secrets

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


def read(traceparent: str) -> tuple[str | None, str | None]:
    """Returns the trace's id, and the header that names our own part of it; None for an invalid
    header, which is ignored as the specification says."""
    found = _TRACEPARENT.fullmatch(traceparent.strip())
    if found is None:
        return None, None
    version, trace, parent, flags, more = found.groups()
    wrong = version == "ff" or not int(trace, 16) or not int(parent, 16)
    if wrong or (version == "00" and more):
        return None, None
    return trace, f"00-{trace}-{secrets.token_hex(8)}-{int(flags, 16) & 1:02x}"
