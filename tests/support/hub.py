"""A Hugging Face hub on this machine, with the part of its protocol that a download uses, and its
faults: broken and silent connections, wrong bytes, errors, and no ranges.

It also answers as an HTTP proxy, for a hub at any address.
"""

import hashlib
import json
import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

COMMIT = "a" * 40


@dataclass
class Hub:
    """`faults` hit the next downloads of model.bin, one each: `break` (half of it, then the end),
    `stall` (half of it, then silence), `wrong` (one byte), `whole` (no ranges), or a status.

    `downloads` are the files that were fetched, each with its Range. `bare`: it gives no hashes.
    """

    repository: str
    files: dict[str, Path]
    commit: str = COMMIT
    bare: bool = False
    faults: deque[str | int] = field(default_factory=deque)
    downloads: list[tuple[str, str | None]] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    tokens: set[str | None] = field(default_factory=set)
    endpoint: str = ""
    released: threading.Event = field(default_factory=threading.Event)

    def info(self) -> dict[str, Any]:
        siblings = [self._sibling(name, path.read_bytes()) for name, path in self.files.items()]
        return {"id": self.repository, "sha": self.commit, "siblings": siblings}

    def _sibling(self, name: str, body: bytes) -> dict[str, Any]:
        if self.bare:
            return {"rfilename": name}
        git = hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest()
        about = {"rfilename": name, "size": len(body), "blobId": git}
        if name == "model.bin":
            lfs = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 1}
            about["lfs"] = lfs
        return about


@contextmanager
def serve(repository: str, files: dict[str, Path], **settings: Any) -> Iterator[Hub]:
    """Yields a hub with one repository; its `endpoint` is the value of HF_ENDPOINT."""
    hub = Hub(repository, files, **settings)

    class Handler(_Handler):
        pass

    Handler.hub = hub
    with _Server(("127.0.0.1", 0), Handler) as server:
        hub.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield hub
        finally:
            hub.released.set()
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    # So that closing it waits for them: an answer's socket must not outlive the test.
    daemon_threads = False


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        hub, url = self.hub, urlsplit(self.path)
        hub.hosts.add(url.netloc)
        hub.tokens.add(self.headers["Authorization"])
        if url.path.startswith(f"/{hub.repository}/resolve/{hub.commit}/"):
            self._file(url.path.rpartition("/")[2])
        elif url.path in (
            f"/api/models/{hub.repository}",
            f"/api/models/{hub.repository}/revision/{hub.commit}",
        ):
            self._answer(200, json.dumps(hub.info()).encode())
        else:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _file(self, name: str) -> None:
        hub, wanted = self.hub, self.headers["Range"]
        hub.downloads.append((name, wanted))
        fault = hub.faults.popleft() if hub.faults and name == "model.bin" else None
        if isinstance(fault, int):
            self._answer(fault, b"")
            return
        body = hub.files[name].read_bytes()
        if fault == "wrong":
            body = bytes([body[0] ^ 1]) + body[1:]
        found = re.fullmatch(r"bytes=(\d+)-", wanted or "")
        start = int(found[1]) if found and fault != "whole" else 0
        headers = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
        self._answer(206 if start else 200, body[start:], headers, fault)

    def _answer(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        fault: str | None = None,
    ) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        cut = fault in ("break", "stall")
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if fault == "stall":
            self.hub.released.wait(30)
        self.close_connection = self.close_connection or cut

    def log_message(self, format: str, *args: Any) -> None:
        pass
