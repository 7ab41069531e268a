"""Settings: one TOML file, a file per worker, environment over files, flags over all.

    /etc/asrd/asrd.toml        [front] and [worker]
    /etc/asrd/worker-N.toml    the same keys as [worker], for worker N alone
    ASRD_FRONT_QUEUE_MAX=8     any key as an environment variable: ASRD_<TABLE>_<KEY>

The two dataclasses below are the whole list; each field carries its own help, from which
`docs/settings.md` and asrd.toml(5) are checked.
"""

import dataclasses
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from asrd.errors import ConfigError, FieldError
from asrd.wire.fields import (
    Getter,
    choice,
    field,
    flag,
    identifier,
    integer,
    number,
    parse,
    string,
    unknown_keys,
)
from asrd.wire.languages import language_or_empty

DEFAULT_CONFIG = Path("/etc/asrd/asrd.toml")
DEFAULT_SOCKET = "/run/asrd/asrd.sock"

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30
_DAY = 24 * 3600


def _path(max_length: int) -> Getter:
    """Accepts a path, and expands `~/` as a shell does: a settings file is read by no shell."""

    def get(key: str, raw: object) -> str:
        text: str = string(max_length)(key, raw)
        return os.path.expanduser(text) if text.startswith("~/") else text  # noqa: PTH111

    return get


_PATH = _path(4096)
_LEVEL = choice("debug", "info", "warning", "error")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FrontSettings:
    socket: str = field(
        _PATH, DEFAULT_SOCKET, help="The socket to listen at, if systemd passes none named `asrd`."
    )
    status_socket: str = field(
        _PATH, "", help="A second socket that answers only status, ping and describe; empty: none."
    )
    worker_dir: str = field(
        _PATH, "/run/asrd/worker", help="The directory of the workers' sockets, one NAME.sock each."
    )
    queue_max: int = field(
        integer(0, 100_000), 1, help="Jobs that may wait for a worker; one more is `busy`."
    )
    queue_max_per_user: int = field(
        integer(0, 100_000), 0, help="Jobs of one user that may wait; 0: only `queue_max` applies."
    )
    queue_max_bytes: int = field(
        integer(_KIB, 1 << 50), 8 * _GIB, help="Bytes of audio that may wait in all."
    )
    queue_max_audio_seconds: float = field(
        number(1, 1e9), 86_400.0, help="Seconds of PCM audio that may wait in all."
    )
    max_wait_seconds: float = field(
        number(0.001, _DAY), 30.0, help="Longest wait for a worker, if the job sets no timeout_ms."
    )
    max_run_seconds: float = field(
        number(0.001, 7 * _DAY), 3600.0, help="Longest run of one job, also if it requests more."
    )
    max_attempts: int = field(
        integer(1, 10), 2, help="Times that a job is started before it fails as `worker-crashed`."
    )
    max_payload_bytes: int = field(
        integer(_KIB, 16 * _GIB), 256 * _MIB, help="Largest inline audio, one shot or streamed."
    )
    spool_max_bytes: int = field(
        integer(_KIB, 1 << 45), 2 * _GIB, help="Memory for the inline audio of all clients."
    )
    spool_max_bytes_per_user: int = field(
        integer(_KIB, 1 << 45), _GIB, help="Memory for the inline audio of one user's clients."
    )
    max_file_bytes: int = field(
        integer(_KIB, 1 << 45), 4 * _GIB, help="Largest audio passed as a descriptor."
    )
    max_audio_seconds: float = field(
        number(0.1, 7 * _DAY), 14_400.0, help="Longest recording of one job."
    )
    connections_max: int = field(
        integer(1, 500_000), 4096, help="Clients connected at once; one more is `busy`."
    )
    connections_max_per_user: int = field(
        integer(1, 500_000), 1024, help="Clients of one user connected at once."
    )
    status_connections_max: int = field(
        integer(1, 500_000), 256, help="Like connections_max, for the status socket."
    )
    status_connections_max_per_user: int = field(
        integer(1, 500_000), 32, help="Like connections_max_per_user, for the status socket."
    )
    jobs_max_per_connection: int = field(
        integer(1, 10_000), 64, help="Unanswered jobs of one connection."
    )
    jobs_max_per_user: int = field(
        integer(0, 1_000_000),
        0,
        help="Unanswered jobs of one user, waiting or running; 0: no limit.",
    )
    frame_timeout_seconds: float = field(
        number(0.01, _DAY),
        30.0,
        help="Time for a whole event to arrive; longest pause between two chunks of a stream.",
    )
    output_max_bytes: int = field(
        integer(64 * _KIB, _GIB),
        16 * _MIB,
        help="Bytes of unread answers to one client; with more, it is disconnected.",
    )
    unread_max_bytes: int = field(
        integer(64 * _KIB, 1 << 45),
        256 * _MIB,
        help="Bytes buffered for all clients together (unread answers and incomplete "
        "events). Above it, the user with the most loses a connection.",
    )
    log_level: str = field(_LEVEL, "info", help="debug, info, warning or error.")


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    model: str = field(
        _path(256),
        "",
        help="A directory, a name in the local cache, or `demo`; empty: `demo`.",
    )
    device: str = field(choice("auto", "cpu", "cuda"), "auto", help="auto, cpu or cuda.")
    device_index: int = field(
        integer(0, 255), 0, help="The GPU's number, among those that the process can see."
    )
    compute_type: str = field(
        identifier(64),
        "default",
        help="CTranslate2's compute type: default, int8, float16, int8_float16 …",
    )
    cpu_threads: int = field(
        integer(0, 4096), 0, help="Threads of one inference on the CPU; 0: CTranslate2's choice."
    )
    language: str = field(
        language_or_empty, "", help="Language of jobs that name none; empty: detect it."
    )
    beam_size: int = field(integer(1, 32), 5, help="Beam size of jobs that name none.")
    vad_filter: bool = field(
        flag,
        False,
        help="Skip silence (Silero VAD) in jobs that don't set it. If true, the VAD is "
        "loaded with the model, otherwise at first use.",
    )
    condition_on_previous_text: bool = field(
        flag, True, help="Prompt each window with the text before it, in jobs that don't set it."
    )
    check_model: bool = field(
        flag, True, help="Refuse a model whose alignment_heads would crash CTranslate2."
    )
    spare: bool = field(
        flag,
        False,
        help="Keep the worker in reserve until no other worker with its model is ready.",
    )
    prefetch: bool = field(
        flag, True, help="Read the next job's audio and compute its features while one runs."
    )
    stall_seconds: float = field(
        number(0.1, _DAY), 120.0, help="Time without progress after which watchdog pings stop."
    )
    cancel_grace_seconds: float = field(
        number(0, 3600),
        5.0,
        help="Time for a cancelled job to stop before the process ends itself.",
    )
    idle_exit_seconds: float = field(
        number(0, 365 * _DAY), 0.0, help="Idle time after which the worker ends; 0: never."
    )
    log_level: str = field(_LEVEL, "info", help="debug, info, warning or error.")


TABLES: dict[str, type] = {"front": FrontSettings, "worker": WorkerSettings}


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
        return parse(cls, settings)
    except FieldError as error:
        raise ConfigError(f"flag for {error}") from None


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
                line = _line(text, key, None)
                raise ConfigError(f"{path}:{line}: unknown table or key {key!r}")
        data = data.get(table, {})
        if not isinstance(data, dict):
            raise ConfigError(f"{path}:{_line(text, table, None)}: {table!r} must be a table")
    for key in unknown_keys(cls, data):
        raise ConfigError(f"{path}:{_line(text, key, table)}: unknown key {key!r}")
    try:
        parse(cls, data)
    except FieldError as error:
        raise ConfigError(f"{path}:{_line(text, error.field, table)}: {error}") from None
    return data


def _line(text: str, key: str, table: str | None) -> int:
    """Returns the line number of a table's key, or of the table if the key has no line of its own.
    tomllib reports no lines, so the text is searched again."""
    inside, found = None, 1
    for number_, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            inside = header[1]
            found = number_ if inside in (table, key) else found
        elif inside == table and _names(line, key):
            return number_
        elif inside is None and table is not None and _names(line, table):
            found = number_
    return found


_HEADER = re.compile(r"""\s*\[{1,2}\s*["']?([^]"']*?)["']?\s*\]""")


def _names(line: str, key: str) -> bool:
    return re.match(rf"""\s*["']?{re.escape(key)}["']?\s*[=.]""", line) is not None


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
            found[spec.name] = spec.metadata["get"](spec.name, _from_text(raw, spec.type))
        except (FieldError, ValueError) as error:
            raise ConfigError(f"{variable}={raw!r}: {error}") from None
    return found


def _from_text(raw: str, kind: Any) -> Any:
    if kind is bool:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(
            raw.strip().lower(), raw
        )
    return kind(raw) if kind in (int, float) else raw
