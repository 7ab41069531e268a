"""Every setting of the daemon and of a worker: type, bounds, default and help. Pure.

`asrd.config` reads them; docs/settings.md and asrd.toml(5) are checked against the help texts.
"""

from dataclasses import dataclass
from typing import Any

from asrd.wire.fields import (
    Table,
    choice,
    field,
    flag,
    identifier,
    integer,
    number,
    path,
    sequence,
    string,
    table,
)
from asrd.wire.languages import language_or_empty
from asrd.wire.options import EngineOptions
from asrd.wire.records import NAME_MAX

DEFAULT_SOCKET = "/run/asrd/asrd.sock"

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30
_DAY = 24 * 3600

_LEVEL = choice("debug", "info", "warning", "error")


def _path(default: str, text: str) -> Any:
    """A setting that is a path, with its help `text`; `asrd.config` expands `~/` in it."""
    return field(path(4096), default, path=True, help=text)


@dataclass(frozen=True, slots=True)
class FrontSettings:
    socket: str = _path(
        DEFAULT_SOCKET, "The socket to listen at, if systemd passes none named `asrd`."
    )
    status_socket: str = _path(
        "", "A second socket that answers only status, ping and describe; empty: none."
    )
    wyoming: str = field(
        string(256),
        "",
        help="HOST:PORT to listen at for Wyoming clients such as Home Assistant, if systemd passes "
        "no socket named `wyoming`; empty: none. Anybody who reaches it may transcribe.",
    )
    worker_dir: str = _path(
        "/run/asrd/worker", "The directory of the workers' sockets, one NAME.sock each."
    )
    crash_file: str = _path(
        "/run/asrd/front/crashes.json",
        "The file that keeps the workers' last crashes for the next front; its directory must be "
        "there.",
    )
    queue_max: int = field(
        integer(0, 100_000),
        64,
        help="Jobs that may wait for a worker; one more is `busy`, unless none of its user waits.",
    )
    queue_max_per_user: int = field(
        integer(0, 100_000), 4, help="Jobs of one user that may wait; 0: no limit but `queue_max`."
    )
    queue_max_bytes: int = field(
        integer(_KIB, 1 << 50), 8 * _GIB, help="Bytes of audio of all waiting jobs."
    )
    queue_max_audio_seconds: float = field(
        number(1, 1e9), 86_400.0, help="Seconds of PCM audio of all waiting jobs."
    )
    max_wait_seconds: float = field(
        number(0.001, _DAY), 30.0, help="Longest wait for a worker, if the job sets no timeout_ms."
    )
    max_load_seconds: float = field(
        number(0.001, _DAY),
        900.0,
        help="Time that a worker may load while the wait of the jobs for it does not count.",
    )
    max_run_seconds: float = field(
        number(0.001, 7 * _DAY),
        3600.0,
        help="Longest time of one job's own turns, also if it requests more.",
    )
    drain_seconds: float = field(
        number(0, 3600),
        60.0,
        help="Time for the accepted jobs to finish when the daemon stops; those left then fail "
        "with `shutting-down`. A restart does not wait for them.",
    )
    max_attempts: int = field(
        integer(1, 10),
        2,
        help="Deaths of the worker in one place of a job after which the job has failed.",
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
        integer(1, 500_000), 256, help="As connections_max, for the status socket."
    )
    status_connections_max_per_user: int = field(
        integer(1, 500_000), 32, help="As connections_max_per_user, for the status socket."
    )
    wyoming_connections_max: int = field(
        integer(1, 500_000), 256, help="As connections_max, for the Wyoming socket."
    )
    wyoming_connections_max_per_address: int = field(
        integer(1, 500_000),
        32,
        help="Clients of one address (IPv6: one /64) connected at once to the Wyoming socket.",
    )
    wyoming_max_audio_seconds: float = field(
        number(0.1, 7 * _DAY), 600.0, help="As max_audio_seconds, for the Wyoming socket."
    )
    wyoming_live: bool = field(
        flag,
        False,
        help="Send text while the audio arrives also to clients that know only Wyoming, at any "
        "socket.",
    )
    wyoming_end_of_speech_ms: int = field(
        integer(0, 60_000),
        0,
        help="Silence after speech that ends a recording of a client that knows only Wyoming, at "
        "any socket; 0: the client ends it.",
    )
    gateways: tuple[str, ...] = field(
        sequence(string(64), 100),
        ("asrd-http",),
        help="Users, by name or number, whose programs speak for others: they may name the user of "
        "a request. Root and the daemon's own user always may.",
    )
    jobs_max_per_connection: int = field(
        integer(1, 10_000), 64, help="Unanswered jobs of one connection."
    )
    jobs_max_per_user: int = field(
        integer(0, 1_000_000),
        0,
        help="Unanswered jobs of one user, waiting or running; 0: no limit.",
    )
    jobs_running_max_per_user: int = field(
        integer(0, 1_000_000), 0, help="Jobs of one user that workers have at once; 0: no limit."
    )
    transcripts_max_bytes: int = field(
        integer(64 * _KIB, 1 << 45),
        256 * _MIB,
        help="Memory for the finished parts of the transcripts of all jobs.",
    )
    frame_timeout_seconds: float = field(
        number(0.01, _DAY),
        30.0,
        help="Time for one event to arrive; longest pause between two chunks of a stream.",
    )
    output_max_bytes: int = field(
        integer(64 * _KIB, _GIB),
        16 * _MIB,
        help="Bytes of unread answers at which a client that does not read loses its connection.",
    )
    unread_max_bytes: int = field(
        integer(64 * _KIB, 1 << 45),
        256 * _MIB,
        help="Bytes of unread answers and incomplete events of all clients together. Above it, "
        "the user with the most loses a connection.",
    )
    default_model: str = field(
        string(NAME_MAX),
        "",
        help="The model of requests that name none, if it can do what they ask for; empty: that of "
        "the worker with the lowest number, a multilingual one if no language is named.",
    )
    model_aliases: Table = field(
        table(identifier(), string(NAME_MAX), 1000),
        Table(),
        help="Other names that clients may give for models; an empty model means the default one.",
    )
    log_level: str = field(_LEVEL, "info", help="debug, info, warning or error.")


@dataclass(frozen=True, slots=True)
class WorkerSettings(EngineOptions):
    """The settings of a worker; those of EngineOptions are the defaults of requests without them,
    and are left to faster-whisper if they are absent, too."""

    # Sent to clients, so no other bytes than UTF-8.
    model: str = field(
        string(256),
        "",
        path=True,
        help="A directory, the name of a model that was added, packaged or fetched (found in this "
        "order), or `demo`; empty: `demo`.",
    )
    device: str = field(
        choice("auto", "cpu", "cuda"), "auto", help="auto: a GPU if one can be used, else the CPU."
    )
    device_index: int = field(
        integer(0, 255), 0, help="The GPU's number among those that the process can see."
    )
    compute_type: str = field(
        string(64),
        "",
        help="CTranslate2's compute type: default (the model's own), int8, float16, "
        "int8_float16 …; empty: int8 on a CPU, else default.",
    )
    cpu_threads: int = field(
        integer(0, 4096),
        0,
        help="Threads of one inference on the CPU; 0: the cores divided by the number of workers, "
        "4 at most. `asrd bench` measures what is fastest.",
    )
    language: str = field(
        language_or_empty, "", help="Language of jobs without one; empty: it is detected."
    )
    beam_size: int = field(integer(1, 32), 5, help="Beam size of jobs without one.")
    batch_size_max: int = field(
        integer(1, 64),
        8,
        help="The most windows that are decoded in one call, however large batch_size is; fewer "
        "with more than 5 beams.",
    )
    vad_filter: bool = field(
        flag,
        False,
        help="Skip silence (Silero VAD), unless the job decides. Then the VAD is loaded with the "
        "model, else at first use.",
    )
    condition_on_previous_text: bool = field(
        flag, True, help="Prompt each window with the text before it, unless the job decides."
    )
    check_model: bool = field(
        flag, True, help="Refuse a model whose alignment_heads would crash CTranslate2."
    )
    self_test: bool = field(
        flag,
        True,
        help="Try the model on a known recording before the worker is ready and after a suspicious "
        "answer, and end if it gives wrong text.",
    )
    speaker_threshold: float = field(
        number(0.01, 2),
        0.8,
        help="Of a model that tells speakers apart: the cosine distance above which two voices are "
        "two speakers.",
    )
    spare: bool = field(
        flag,
        False,
        help="Keep this worker in reserve until no other worker with its model is ready.",
    )
    slots: int = field(
        integer(1, 32),
        4,
        help="Jobs that take turns, window by window; one of them has at most one window left.",
    )
    max_audio_seconds: float = field(
        number(0, 7 * _DAY),
        0.0,
        help="Longest recording that this worker takes, for a lane of commands; 0: no limit.",
    )
    stall_seconds: float = field(
        number(0.1, _DAY), 120.0, help="Time without progress after which watchdog pings stop."
    )
    cancel_grace_seconds: float = field(
        number(0, 3600),
        5.0,
        help="Time for a cancelled job to stop before the process ends itself; at least the time "
        "that the model took to load.",
    )
    idle_exit_seconds: float = field(
        number(0, 365 * _DAY), 0.0, help="Idle time after which the worker ends; 0: never."
    )
    log_level: str = field(_LEVEL, "info", help="debug, info, warning or error.")


# The names by which programs ask for OpenAI's models.
_OPENAI_MODELS = (
    *("whisper-1", "gpt-transcribe", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"),
    *("gpt-4o-mini-transcribe-2025-12-15", "gpt-4o-transcribe-diarize"),
)


@dataclass(frozen=True, slots=True)
class HttpSettings:
    socket: str = _path(DEFAULT_SOCKET, "The daemon's socket.")
    listen: str = field(
        string(4096),
        "unix:/run/asrd/http.sock",
        help="Where to listen, if systemd passes no socket: unix:PATH or HOST:PORT.",
    )
    api_keys: str = _path(
        "",
        "A file with the keys of those who may transcribe, one `NAME KEY` a line; empty: everybody "
        "who reaches the socket may.",
    )
    hosts: tuple[str, ...] = field(
        sequence(string(255), 100),
        (),
        help="Names that a client may use for this server, besides localhost and addresses; `*`: "
        "any. It keeps web pages of others from using a browser to reach it.",
    )
    max_upload_bytes: int = field(
        integer(_KIB, 1 << 45), 2 * _GIB, help="Largest recording that is uploaded."
    )
    uploads_max_bytes: int = field(
        integer(_KIB, 1 << 45), 4 * _GIB, help="Memory for all recordings that are uploaded."
    )
    upload_max_seconds: float = field(
        number(0.1, 24 * 3600), 3600.0, help="Time for one upload, however fast it is."
    )
    requests_max: int = field(
        integer(1, 100_000), 256, help="Requests for a transcript at once; one more is busy."
    )
    drain_seconds: float = field(
        number(0, 3600),
        5.0,
        help="Time between SIGTERM, when /readyz fails, and the end of listening: a load balancer "
        "has to notice. Running requests finish after it.",
    )
    stop_seconds: float = field(
        number(0, 3600),
        300.0,
        help="Time after that for running requests. Those that take longer get 503, and clients "
        "repeat them: meanwhile nobody else is served.",
    )
    model_aliases: Table = field(
        table(identifier(), string(NAME_MAX), 1000),
        Table(dict.fromkeys(_OPENAI_MODELS, "")),
        help="Other names that clients may give for models; an empty model means the default one.",
    )
    log_level: str = field(_LEVEL, "info", help="debug, info, warning or error.")


TABLES: dict[str, type] = {
    "front": FrontSettings,
    "worker": WorkerSettings,
    "http": HttpSettings,
}
