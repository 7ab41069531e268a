"""The checks of models, for `asrctl doctor`."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from shlex import quote

from asrd.asrctl.access import parts
from asrd.asrctl.finding import Finding, edit, ok, unseen, wrong
from asrd.asrctl.host import Host
from asrd.config import load_worker
from asrd.errors import AsrdError, ConfigError

MODELS = Path("/var/lib/asrd/models")
# The directories that the worker's sandbox hides (ProtectHome=, PrivateTmp=).
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
# The files that the engine reads.
_FILES = ("model.bin", "*.json", "vocabulary.txt", "*.onnx")


def models(host: Host) -> Iterator[Finding]:
    """Each model: present, complete, and readable by the worker's user. That of an `asrd run` is
    the one that it runs, as its flags are not known here."""
    running = None
    if not host.is_installed():
        with suppress(AsrdError):
            running = {worker.name: worker.model or "demo" for worker in host.status().workers}
    if running is None:
        yield from configured_models(host)
        return
    for worker, model in running.items():
        yield _complete(f"of worker {worker}: ", model)


def configured_models(host: Host) -> Iterator[Finding]:
    """The models of the settings, whatever runs now."""
    installed = host.is_installed()
    if installed:
        os.environ.setdefault("HF_HOME", str(MODELS))
    for worker, model in _configured(host).items():
        if installed:
            yield _in_sandbox(host, worker, model)
        else:
            yield _complete(f"configured for worker {worker}: ", model)


def _configured(host: Host) -> dict[str, str]:
    found = {}
    for name in host.worker_names():
        with suppress(ConfigError):
            found[name] = load_worker(host.config, name).model or "demo"
    return found


def _in_sandbox(host: Host, name: str, model: str) -> Finding:
    worker = f"configured for worker {name}: "
    if any(Path(model).is_relative_to(hidden) for hidden in _HIDDEN):
        own = host.worker_file(name)
        file = own if own.exists() else host.config
        add = f'a copy of it can be added, as model = "{Path(model).name}"'
        text = f"{worker}{model} is hidden from workers by their sandbox; {add}"
        return wrong(text, f"sudo asrd add-model {quote(model)} && {edit(file)}")
    try:
        path = _found(model)
        if path is None or host.is_missing(path):
            return _complete(worker, model, "sudo asrd")
        reader, files = host.worker_reader(), []
        seen = os.access(path, os.R_OK | os.X_OK)
        if seen:
            files = [file for pattern in _FILES for file in path.glob(pattern)]
        # In the cache of the hub, they are links into another directory.
        if closed := reader.closed(part for each in (path, *files) for part in parts(each)):
            names = [str(part) for part in closed]
            text = f"{worker}{reader.name} can't read {' '.join(names)}"
            return wrong(text, f"sudo chmod a+rX {' '.join(map(quote, names))}")
        if seen and all(os.access(file, os.R_OK) for file in files):
            return _complete(worker, model, "sudo asrd")
    except PermissionError as error:
        return unseen(f"{worker}{error.filename or model} is closed to {host.user()}")
    return unseen(f"{worker}{path} is closed to {host.user()}, but not to workers")


def _found(model: str) -> Path | None:
    """Returns the model's directory, None if there is none, or if no engine is installed to find it
    by name. Raises PermissionError."""
    if model.startswith("/"):
        return Path(model)
    try:
        from asrd.engine.models import resolve

        return resolve(model)
    except (ImportError, AsrdError):
        return None


def _complete(worker: str, model: str, asrd: str = "asrd") -> Finding:
    """Looks the model up and checks its files as the engine does, if the engine is installed."""
    by_name = not model.startswith(("/", "~", "."))
    try:
        from asrd.engine.model_check import check
        from asrd.engine.models import resolve
    except ImportError:
        return unseen(f"{worker}{model!r} can't be examined without the package asrd")
    try:
        path = resolve(model)
    except AsrdError as error:
        fix = f"{asrd} fetch-model {quote(model)}" if by_name else None
        return wrong(f"{worker}{error}", fix, None if by_name else f"ls -ld {quote(model)}")
    try:
        check(path)
    except AsrdError as error:
        return wrong(f"{worker}{error}", see=f"ls -l {quote(str(path))}")
    return ok(f"{worker}{model} is complete")
