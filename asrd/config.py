"""Reads the settings: one TOML file, a file per worker, environment over files, flags over all.

    /etc/asrd/asrd.toml        [front], [worker] and [http]
    /etc/asrd/worker-N.toml    the same keys as [worker], for worker N alone
    ASRD_FRONT_QUEUE_MAX=8     any key as an environment variable: ASRD_<TABLE>_<KEY>
    ASRD_WORKER_TEMPERATURE=[0, 0.2]        lists and tables as in TOML

The settings themselves are declared in `asrd.settings`.
"""

import contextlib
import dataclasses
import os
import re
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from asrd.errors import ConfigError, FieldError
from asrd.settings import TABLES, FrontSettings, HttpSettings, WorkerSettings
from asrd.wire.fields import parse, unknown_keys

DEFAULT_CONFIG = Path("/etc/asrd/asrd.toml")

T = TypeVar("T", FrontSettings, WorkerSettings, HttpSettings)


def config_path(flag_value: str | None = None) -> Path:
    """Returns the settings file: flag, else ASRD_CONFIG, else /etc/asrd/asrd.toml.

    Raises ConfigError if the flag names a missing file.
    """
    if flag_value is not None and not Path(flag_value).exists():
        raise ConfigError(f"{flag_value}: there is no such file")
    return Path(flag_value or os.environ.get("ASRD_CONFIG") or DEFAULT_CONFIG)


def load_front(
    path: Path,
    flags: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> FrontSettings:
    """Returns the front's settings; `defaults` override those of the table. Raises ConfigError
    that names file, line and key (or the variable)."""
    return _load(FrontSettings, "front", [path], flags or {}, defaults or {})


def load_http(path: Path, flags: Mapping[str, Any] | None = None) -> HttpSettings:
    """Returns the settings of asrd-http. Raises ConfigError that names file, line and key (or the
    variable)."""
    return _load(HttpSettings, "http", [path], flags or {}, {})


def load_worker(path: Path, name: str, flags: Mapping[str, Any] | None = None) -> WorkerSettings:
    """Returns the settings of worker `name`: the common file, then `worker-NAME.toml` next to it.

    A model's directory may be relative to these files (`models/base`, `./base`; a single word is a
    name). Raises ConfigError that names file, line and key (or the variable).
    """
    files = [path, path.with_name(f"worker-{name}.toml")]
    settings = _load(WorkerSettings, "worker", files, flags or {}, {})
    beside = str(path.parent / settings.model)
    # Not Path.is_dir: it raises for a name that is too long.
    if "/" in settings.model and os.path.isdir(beside):  # noqa: PTH112
        return dataclasses.replace(settings, model=beside)
    return settings


def absolute(path: str) -> str:
    """Returns a user's path as an absolute one. Raises ConfigError."""
    try:
        return str(Path(path).expanduser().absolute())
    except OSError:
        raise ConfigError(
            f"{path} is relative to the working directory, which was removed: use an absolute path"
        ) from None
    except RuntimeError as error:
        raise ConfigError(f"{path}: {error}") from None


def _load(
    cls: type[T],
    table: str,
    paths: list[Path],
    flags: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> T:
    settings: dict[str, Any] = dict(defaults)
    for index, path in enumerate(paths):
        settings |= _read(path, cls, table if index == 0 else None)
    settings |= _environment(cls, table)
    settings |= {key: value for key, value in flags.items() if value is not None}
    try:
        return _expanded(parse(cls, settings))
    except FieldError as error:
        raise ConfigError(f"flag for {error}") from None


def _expanded(settings: T) -> T:
    """Expands `~/` in paths, since not all of them went through a shell."""
    paths = {
        spec.name: os.path.expanduser(path)  # noqa: PTH111
        for spec in dataclasses.fields(settings)
        if spec.metadata.get("path") and (path := getattr(settings, spec.name)).startswith("~/")
    }
    return dataclasses.replace(settings, **paths)


def _read(path: Path, cls: type, table: str | None) -> dict[str, Any]:
    """Returns the checked keys of a file, or of its `table` if the file has tables."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # Besides TOMLDecodeError, for an integer with too many digits or a list nested too deeply.
        raise ConfigError(f"{path}: {error}") from None
    if table is not None:
        for key in data:
            if key not in TABLES:
                line = _line(text, key)
                raise ConfigError(f"{path}:{line}: unknown table or key {key!r}")
        data = data.get(table, {})
        if not isinstance(data, dict):
            raise ConfigError(f"{path}:{_line(text, table)}: {table!r} must be a table")
    prefix = "" if table is None else f"{table}."
    for key in unknown_keys(cls, data):
        raise ConfigError(f"{path}:{_line(text, prefix + key)}: unknown key {key!r}")
    try:
        parse(cls, data)
    except FieldError as error:
        raise ConfigError(f"{path}:{_line(text, prefix + error.field)}: {error}") from None
    return data


def _line(text: str, key: str) -> int:
    """Returns the number of the line that sets `key` (`worker.vad_parameters.threshold`), or of the
    table or list that it is in. tomllib reports no lines, so the text is searched again."""
    header = longest = ""
    found = 1
    for number_, line in enumerate(text.splitlines(), 1):
        if match := _HEADER.match(line):
            named = header = _plain(match[1])
        elif match := _KEY.match(line):
            named = f"{header}.{_plain(match[1])}".lstrip(".")
        else:
            continue
        if len(named) > len(longest) and re.match(rf"{re.escape(named)}(?![\w-])", key):
            longest, found = named, number_
    return found


_HEADER = re.compile(r"\s*\[{1,2}([^]]*)\]")
_KEY = re.compile(r"([^=#]+)=")


def _plain(key: str) -> str:
    """Returns a key of TOML without quotes and spaces."""
    return re.sub(r"[\s\"']", "", key)


def _environment(cls: type, table: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    prefix = f"ASRD_{table}_".upper()
    specs = {prefix + spec.name.upper(): spec for spec in dataclasses.fields(cls)}
    for variable, raw in os.environ.items():
        if not variable.startswith(prefix):
            continue
        spec = specs.get(variable)
        if spec is None:
            raise ConfigError(f"{variable}: [{table}] has no such key")
        try:
            found[spec.name] = from_text(raw, spec.type)
            spec.metadata["get"](spec.name, found[spec.name])
            for key in unknown_keys(cls, {spec.name: found[spec.name]}):
                raise FieldError(key, "is unknown")
        except FieldError as error:
            raise ConfigError(f"{variable}={raw!r}: {error}") from None
    return found


def from_text(raw: str, kind: Any) -> Any:
    """Returns the value of a variable: text as it is, everything else as in TOML, and words for
    true and false. A value that can't be read stays text, and the setting's getter reports it."""
    kinds = set(typing.get_args(kind) or (kind,)) - {type(None)}
    if kinds == {str}:
        return raw
    if kinds == {bool}:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(
            raw.strip().lower(), raw
        )
    for number_ in kinds & {int, float}:
        with contextlib.suppress(ValueError):
            return number_(raw)
    with contextlib.suppress(ValueError, RecursionError):
        return tomllib.loads(f"value = {raw}")["value"]
    return raw
