"""Downloads from the Hugging Face hub, or a mirror of it (HF_ENDPOINT), through its own library.

The library reads HF_TOKEN, HF_HUB_OFFLINE and the proxy's variables. Its lowest function for one
file is used: those above it start an interrupted download again from the beginning.
"""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from asrd.engine.fetching.files import LARGEST, is_digest
from asrd.engine.models import first_line, import_hub
from asrd.errors import AsrdError

# The longest wait for the hub's first answer, in seconds.
_PATIENCE = 10.0
# Pauses before further attempts, in seconds, after an answer that may change.
_PAUSES = (1.0, 4.0)
_CHUNK = 1 << 20
_PASSING = {408, 429, 500, 502, 503, 504}

T = TypeVar("T")


class HubError(AsrdError):
    """The hub can't be reached, or does not have the model."""


class Unreachable(HubError):
    """No answer came from the hub, or the library is in offline mode."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on the hub. `digest` is a SHA-256 or git's hash, None if the hub gives neither."""

    name: str
    size: int | None
    digest: str | None


@dataclass(frozen=True, slots=True)
class Remote:
    repository: str
    revision: str
    files: tuple[RemoteFile, ...]


def look_up(repository: str, revision: str | None) -> Remote:
    """Returns the model's files at a revision, the newest by default. Raises HubError."""
    hub = import_hub()
    info = _patiently(
        lambda: hub.HfApi().model_info(
            repository, revision=revision, timeout=_PATIENCE, files_metadata=True
        ),
        repository,
    )
    if not is_digest(info.sha):
        raise HubError(f"{hub.constants.ENDPOINT} names no revision of {repository}")
    files = [_remote_file(each) for each in info.siblings or () if each.rfilename in LARGEST]
    return Remote(repository, info.sha, tuple(files))


def _remote_file(sibling: Any) -> RemoteFile:
    # Its type differs between the library's versions.
    lfs = sibling.lfs
    sha256 = lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)
    hash_ = sha256 or sibling.blob_id
    size = sibling.size if isinstance(sibling.size, int) and sibling.size >= 0 else None
    return RemoteFile(sibling.rfilename, size, hash_ if is_digest(hash_) else None)


def download(remote: Remote, file: RemoteFile, partial: Path) -> None:
    """Completes the file `partial`, which may hold the beginning. Raises HubError (then also if
    more came than the hub states, and the file is gone), OSError."""
    hub = import_hub()
    from huggingface_hub.file_download import http_get

    url = hub.hf_hub_url(
        remote.repository,
        file.name,
        revision=remote.revision,
        endpoint=hub.constants.ENDPOINT,
    )

    # The library drops an incomplete chunk: with its 10 MiB, a line that breaks often gets nowhere.
    hub.constants.DOWNLOAD_CHUNK_SIZE = _CHUNK

    most = LARGEST[file.name] if file.size is None else file.size

    def attempt() -> None:
        with _Bounded(partial, most) as target:
            http_get(
                url,
                target,
                resume_size=target.tell(),
                headers=hub.utils.build_hf_headers(),
                expected_size=file.size,
                displayed_filename=file.name,
            )

    if file.size is not None and partial.exists() and partial.stat().st_size > file.size:
        partial.unlink()
    try:
        _patiently(attempt, remote.repository)
    except _TooMuch:
        partial.unlink()
        raise


class _TooMuch(HubError):
    """More came than the hub has stated."""


class _Bounded(io.BufferedWriter):
    """A file to append to, up to `most` bytes."""

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._most = most

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self._most:
            raise _TooMuch(f"{self.name} would be larger than {self._most:,} bytes, as stated")
        return super().write(data)


def _patiently(call: Callable[[], T], repository: str) -> T:
    """Calls the hub, again after an error that may pass. Raises HubError, OSError."""
    hub = import_hub()
    pauses = list(_PAUSES)
    while True:
        try:
            return call()
        except HubError:
            raise
        except hub.errors.RepositoryNotFoundError:
            raise HubError(f"the hub has no repository {repository}") from None
        except Exception as error:  # each version of the library raises others
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk
            status = getattr(getattr(error, "response", None), "status_code", None)
            if not pauses or status not in _PASSING:
                kind = Unreachable if status is None else HubError
                raise kind(f"{hub.constants.ENDPOINT}: {first_line(error)}") from None
            time.sleep(pauses.pop(0))
