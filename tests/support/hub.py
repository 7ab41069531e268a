"""A Hugging Face hub on this machine, with the part of its protocol that a download uses."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_COMMIT = "a" * 40


@contextmanager
def serve(repository: str, files: dict[str, Path]) -> Iterator[str]:
    """Yields the address (HF_ENDPOINT) of a hub with one repository."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, with_body: bool) -> None:
            status, headers, body = _answer(self.path, repository, files)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _answer(
    path: str, repository: str, files: dict[str, Path]
) -> tuple[int, dict[str, str], bytes]:
    api = f"/api/models/{repository}"
    if path.startswith(f"/{repository}/resolve/{_COMMIT}/"):
        body = files[path.rpartition("/")[2]].read_bytes()
        etag = hashlib.sha1(body, usedforsecurity=False).hexdigest()
        return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": _COMMIT}, body
    if path.startswith(f"{api}/tree/{_COMMIT}"):
        entries = [
            {"type": "file", "path": name, "size": file.stat().st_size, "oid": "0" * 40}
            for name, file in files.items()
        ]
        return 200, {}, json.dumps(entries).encode()
    if path in (api, f"{api}/revision/main"):
        siblings = [{"rfilename": name} for name in files]
        about = {"id": repository, "modelId": repository, "sha": _COMMIT, "siblings": siblings}
        return 200, {}, json.dumps(about).encode()
    return 404, {"X-Error-Code": "RepoNotFound"}, b""
