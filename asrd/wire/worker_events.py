"""The events between front and worker; asrd.wire.client_events has those of the other hop.

`key` is the front's number for one attempt at one job. It is never used twice, so that a late
answer is never taken for another job's.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, get_args

from asrd.wire.fields import (
    by_type,
    choice,
    field,
    flag,
    identifier,
    integer,
    mapping,
    nested,
    number,
    sequence,
    string,
)
from asrd.wire.options import Options
from asrd.wire.records import (
    NAME_MAX,
    SENTENCE_MAX,
    TEXT_MAX,
    WARNINGS_MAX,
    WEEK_S,
    AudioFormat,
    Checkpoint,
    JobWarning,
    LastProcess,
)

PROTOCOL_VERSION = 2
# The most jobs that may take turns on one worker.
JOBS_MAX = 64


@dataclass(frozen=True, slots=True)
class StartJob:
    """Always with exactly one descriptor: the audio, `size` bytes long when it was accepted.

    `resume` is the last checkpoint of an earlier attempt. `suspect`: a worker died in this job's
    turn, at this place; it has all turns until it is past it.
    """

    TYPE: ClassVar = "job"
    key: int = field(integer(0, 1 << 53))
    job_id: str = field(identifier())
    audio: AudioFormat = field(nested(AudioFormat))
    options: Options = field(nested(Options))
    size: int = field(integer(0, 1 << 53))
    trace_id: str | None = field(identifier(), None)
    stream: bool = field(flag, False)
    max_audio_seconds: float = field(number(0, WEEK_S), WEEK_S)
    resume: Checkpoint | None = field(nested(Checkpoint), None)
    suspect: bool = field(flag, False)


@dataclass(frozen=True, slots=True)
class CancelJob:
    """The front no longer needs the answer."""

    TYPE: ClassVar = "cancel"
    key: int = field(integer(0, 1 << 53))


@dataclass(frozen=True, slots=True)
class Loading:
    """The worker has started to load its model. Sent a second time, with `languages` and the other
    skills (see Hello), after the worker has read the model's files."""

    TYPE: ClassVar = "loading"
    pid: int = field(integer(1, 1 << 31))
    model: str = field(string(NAME_MAX))
    last: LastProcess | None = field(nested(LastProcess), None)
    languages: tuple[str, ...] = field(sequence(identifier(16), 1000), ())
    translate: bool = field(flag, True)
    word_timestamps: bool = field(flag, True)
    speech: bool = field(flag, False)
    speakers: bool = field(flag, False)


@dataclass(frozen=True, slots=True)
class Hello:
    """The model is loaded and warm: the worker takes jobs. `languages`, `translate` and
    `word_timestamps` are the model's skills, `speech` is the worker's: an older asrd does not know
    that task. A model for `speakers` tells them apart and does nothing else. `spare`: in reserve
    for others with this model.

    `slots` jobs take turns; recordings may last `max_audio_seconds` (0: no limit of its own).
    `cpu_threads` of an inference on the CPU (0: it uses a GPU), and the `cores` that the process
    may use. May come with one descriptor: the turn word (asrd.wire.turn_word).
    """

    TYPE: ClassVar = "hello"
    version: int = field(integer(1, 1 << 31))
    pid: int = field(integer(1, 1 << 31))
    model: str = field(string(NAME_MAX))
    languages: tuple[str, ...] = field(sequence(identifier(16), 1000))
    device: str = field(identifier(64))
    compute_type: str = field(identifier(64))
    spare: bool = field(flag, False)
    load_seconds: float = field(number(0, 1e6), 0.0)
    last: LastProcess | None = field(nested(LastProcess), None)
    alive_seconds: float | None = field(number(0.05, 3600), None)
    translate: bool = field(flag, True)
    word_timestamps: bool = field(flag, True)
    speech: bool = field(flag, False)
    speakers: bool = field(flag, False)
    slots: int = field(integer(1, JOBS_MAX), 1)
    max_audio_seconds: float = field(number(0, WEEK_S), 0.0)
    cpu_threads: int = field(integer(0, 4096), 0)
    cores: int = field(integer(0, 1 << 20), 0)


@dataclass(frozen=True, slots=True)
class JobState:
    """The progress of a job: `work_seconds` are the time of its own turns, `audio_seconds` is the
    length of its recording, once known."""

    key: int = field(integer(0, 1 << 53))
    work_seconds: float = field(number(0, WEEK_S))
    audio_seconds_done: float = field(number(0, WEEK_S), 0.0)
    audio_seconds: float | None = field(number(0, WEEK_S), None)


@dataclass(frozen=True, slots=True)
class Alive:
    """A sign of life every `alive_seconds` after the model is loaded, also while the engine runs.

    `jobs` are all that it has, `stalled_seconds` is the time without progress if it is too long.
    """

    TYPE: ClassVar = "alive"
    jobs: tuple[JobState, ...] = field(sequence(nested(JobState), JOBS_MAX), ())
    stalled_seconds: float = field(number(0, WEEK_S), 0.0)


@dataclass(frozen=True, slots=True)
class JobWindow:
    """Windows of a job are done: their segments, the text of those joined, and the place from which
    another worker can go on. Sent at the start of a later window, also if nobody streams."""

    TYPE: ClassVar = "window"
    key: int = field(integer(0, 1 << 53))
    checkpoint: Checkpoint = field(nested(Checkpoint))
    text: str = field(string(TEXT_MAX), "")
    # Passed on unchecked: the client's library checks segments.
    segments: tuple[dict[str, Any], ...] = field(sequence(mapping, 1 << 20), ())


@dataclass(frozen=True, slots=True)
class JobProgress:
    TYPE: ClassVar = "progress"
    key: int = field(integer(0, 1 << 53))
    audio_seconds_done: float = field(number(0, WEEK_S))
    audio_seconds: float | None = field(number(0, WEEK_S), None)


@dataclass(frozen=True, slots=True)
class Done:
    """The end of a job. `text` and `segments` are those that no JobWindow had; the text is joined
    as in those. `run_seconds` is the time of the job's own turns in this attempt. Only the tasks
    `speech` and `speakers` find no `language`."""

    TYPE: ClassVar = "done"
    key: int = field(integer(0, 1 << 53))
    text: str = field(string(TEXT_MAX))
    audio_seconds: float = field(number(0, WEEK_S))
    run_seconds: float = field(number(0, WEEK_S))
    language: str | None = field(identifier(16), None)
    language_probability: float = field(number(0, 1.001), 0.0)
    # Passed on unchecked: the client's library checks segments.
    segments: tuple[dict[str, Any], ...] = field(sequence(mapping, 1 << 20), ())
    warnings: tuple[JobWarning, ...] = field(sequence(nested(JobWarning), WARNINGS_MAX), ())


@dataclass(frozen=True, slots=True)
class Failed:
    """A failed job. `fatal`: the process is unusable (a CUDA error) and ends: a crash. `self_test`:
    because the model gives wrong text."""

    TYPE: ClassVar = "failed"
    key: int = field(integer(0, 1 << 53))
    code: str = field(identifier(64))
    text: str = field(string(SENTENCE_MAX))
    fatal: bool = field(flag, False)
    self_test: bool = field(flag, False)


@dataclass(frozen=True, slots=True)
class CannotLoad:
    """The model can't be loaded. The worker exits: with 78 if it is configured wrong, else 70.
    `self_test`: it gives wrong text."""

    TYPE: ClassVar = "cannot-load"
    text: str = field(string(SENTENCE_MAX))
    self_test: bool = field(flag, False)


@dataclass(frozen=True, slots=True)
class Bye:
    """The worker exits on its own. Another one goes on with the jobs that it has not answered.

    `cancelled`: a job that was cancelled did not stop.
    """

    TYPE: ClassVar = "bye"
    reason: str = field(choice("idle", "stopping", "cancelled"))


WorkerEvent = Loading | Hello | Alive | JobWindow | JobProgress | Done | Failed | CannotLoad | Bye
FrontEvent = StartJob | CancelJob

FROM_WORKER = by_type(*get_args(WorkerEvent))
TO_WORKER = by_type(*get_args(FrontEvent))
