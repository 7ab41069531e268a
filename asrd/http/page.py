"""The web page, and the headers that let it do only what it needs.

Its script and its style are allowed by their hashes (https://www.w3.org/TR/CSP3/): whatever else
gets into the page, by the name of a file or the text of a transcript, is not run.
"""

import base64
import hashlib
import json
import re
from importlib.resources import files

from starlette.responses import HTMLResponse

from asrd.wire.languages import NAMES

# The list in the script that is filled in here.
_LANGUAGES = "const LANGUAGES = {};"
# Each element is alone on its lines and has no attributes.
_ELEMENTS = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def page() -> HTMLResponse:
    """Returns the answer to all requests for the page."""
    html = files("asrd.http").joinpath("page.html").read_text(encoding="utf-8")
    languages = json.dumps({code: name.title() for code, name in NAMES.items()})
    html = html.replace(_LANGUAGES, _LANGUAGES.replace("{}", languages))
    return HTMLResponse(html, headers=_headers(html))


def _headers(html: str) -> dict[str, str]:
    hashes = {name: _hash(content) for name, content in _ELEMENTS.findall(html)}
    policy = {
        "default-src": "'none'",
        "script-src": hashes["script"],
        "style-src": hashes["style"],
        "connect-src": "'self'",
        # The icon is part of the page; a recording is played from the browser's own memory.
        "img-src": "data:",
        "media-src": "blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "permissions-policy": "microphone=(self), camera=(), geolocation=(), display-capture=()",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        # After an upgrade nobody should have the old page.
        "cache-control": "no-cache",
    }


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
