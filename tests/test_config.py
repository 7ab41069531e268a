"""Every setting from every source; every mistake is reported with file, line and key."""

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from asrd.config import DEFAULT_CONFIG, config_path, load_front, load_http, load_worker
from asrd.errors import ConfigError
from asrd.settings import TABLES, FrontSettings, WorkerSettings
from asrd.wire.fields import Table

KEYS = [(table, spec) for table, cls in TABLES.items() for spec in dataclasses.fields(cls)]
NAMES = [f"{table}.{spec.name}" for table, spec in KEYS]
# Values other than the defaults.
OTHERS: dict[str, Any] = {
    "socket": "/tmp/x.sock",
    "status_socket": "/tmp/s.sock",
    "wyoming": "127.0.0.1:10300",
    "worker_dir": "/tmp/w",
    "crash_file": "/tmp/crashes.json",
    "gateways": ["web"],
    "listen": "127.0.0.1:8000",
    "api_keys": "/tmp/keys",
    "hosts": ["asr.example"],
    "device": "cpu",
    "compute_type": "int8",
    "model": "tiny",
    "language": "en",
    "log_level": "debug",
    "default_model": "base",
    "model_aliases": Table({"whisper-1": "base"}),
    "patience": 1.5,
    "best_of": 3,
    "length_penalty": 0.5,
    "repetition_penalty": 1.1,
    "no_repeat_ngram_size": 3,
    "temperature": [0.0, 0.5],
    "compression_ratio_threshold": 2.0,
    "log_prob_threshold": -0.5,
    "no_speech_threshold": 0.5,
    "hallucination_silence_threshold": 2.0,
    "prompt_reset_on_temperature": 0.3,
    "suppress_blank": False,
    "suppress_tokens": [-1, 50],
    "without_timestamps": True,
    "max_initial_timestamp": 2.0,
    "prepend_punctuations": "(",
    "append_punctuations": ")",
    "max_new_tokens": 100,
    "chunk_length": 20,
    "multilingual": True,
    "languages": ["en", "de"],
    "language_detection_threshold": 0.7,
    "language_detection_segments": 2,
    "vad_parameters": {"threshold": 0.4, "speech_pad_ms": 200},
    "batch_size": 4,
    "window": "full",
}


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in os.environ:
        if variable.startswith("ASRD_"):
            monkeypatch.delenv(variable)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "asrd.toml"


def load(table: str, file: Path) -> Any:
    if table == "http":
        return load_http(file)
    return load_front(file) if table == "front" else load_worker(file, "7")


def other(spec: dataclasses.Field[Any]) -> Any:
    default: Any = spec.default
    if isinstance(default, bool):
        return not default
    return OTHERS[spec.name] if spec.name in OTHERS else default + 1


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "{ "
            + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items())
            + " }"
        )
    return json.dumps(value)


def refused(table: str, file: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(table, file)
    return str(caught.value)


# --- sources --------------------------------------------------------------------------------------


def test_defaults_apply_without_a_file(file: Path) -> None:
    assert load_front(file) == FrontSettings()
    assert load_worker(file, "0") == WorkerSettings()
    file.write_text("")
    assert load_front(file) == FrontSettings()


@pytest.mark.parametrize(("table", "spec"), KEYS, ids=NAMES)
def test_every_key_can_be_set_in_file_and_environment(
    table: str, spec: dataclasses.Field[Any], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = other(spec)
    expected = TABLES[table](**{spec.name: spec.metadata["get"](spec.name, value)})
    file.write_text(f"[{table}]\n{spec.name} = {toml(value)}\n")
    assert load(table, file) == expected
    file.write_text(f"[{table}]\n\n{spec.name} = 1970-01-01\n")
    assert refused(table, file).startswith(f"{file}:3: {spec.name}: must be ")
    file.write_text(
        "" if spec.default is None else f"[{table}]\n{spec.name} = {toml(spec.default)}\n"
    )
    monkeypatch.setenv(
        f"ASRD_{table}_{spec.name}".upper(), value if isinstance(value, str) else toml(value)
    )
    assert load(table, file) == expected


def test_every_key_has_a_help_of_one_line() -> None:
    for _, spec in KEYS:
        assert spec.metadata["help"].strip()[-1] in ".…"
        assert "\n" not in spec.metadata["help"]


def test_worker_file_overrides_the_common_one(file: Path) -> None:
    file.write_text('[worker]\nmodel = "base"\nbeam_size = 2\n[front]\nqueue_max = 9\n')
    file.with_name("worker-gpu1.toml").write_text('model = "large"\n')
    assert load_worker(file, "gpu1") == WorkerSettings(model="large", beam_size=2)
    assert load_worker(file, "gpu2") == WorkerSettings(model="base", beam_size=2)


def test_flags_override_environment_and_files(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('[front]\nsocket = "/file"\nqueue_max = 9\n')
    monkeypatch.setenv("ASRD_FRONT_SOCKET", "/environment")
    assert load_front(file, {"socket": None}).socket == "/environment"
    assert load_front(file, {"socket": "/flag"}) == FrontSettings(socket="/flag", queue_max=9)


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("1", True), ("Yes", True), ("false", False), ("0", False), (" no ", False)],
)
def test_boolean_in_the_environment(
    text: str, value: bool, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASRD_WORKER_VAD_FILTER", text)
    assert load_worker(file, "0").vad_filter is value


# --- the file -------------------------------------------------------------------------------------


def test_file_is_named_by_flag_environment_or_default(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config_path() == DEFAULT_CONFIG
    monkeypatch.setenv("ASRD_CONFIG", "/from/environment.toml")
    assert config_path() == Path("/from/environment.toml")
    with pytest.raises(ConfigError, match=f"{file}: there is no such file"):
        config_path(str(file))
    file.write_text("")
    assert config_path(str(file)) == file


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[front]\nqueue_mx = 1\n", "2: unknown key 'queue_mx'"),
        ("# x\n[fornt]\nqueue_max = 1\n", "2: unknown table or key 'fornt'"),
        ("queue_max = 1\n", "1: unknown table or key 'queue_max'"),
        ("\n front = 1\n", "2: 'front' must be a table"),
        ("\n[[front]]\n", "2: 'front' must be a table"),
        ("[front]\nqueue_max = -1\n", "2: queue_max: must be between 0 and 100000"),
        ("[front]\nqueue_max = 2026-01-01\n", "2: queue_max: must be an integer"),
        ("[front]\nmax_wait_seconds = nan\n", "2: max_wait_seconds: must be between 0.001 and"),
        # The same key is also in another table and in a comment.
        ('[worker]\nlog_level = "info"\n[front]\n#log_level\nlog_level = 1\n', "5: log_level: mu"),
        ('[front]\n"queue_max" = "x"\n', "2: queue_max: must be an integer"),
        ("\nfront.queue_max = -1\n", "2: queue_max: must be between"),
        ("\nfront = { queue_max = -1 }\n", "2: queue_max: must be between"),
        ("[ 'front' ]\n\nqueue_max= -1\n", "3: queue_max: must be between"),
        # A key that is the beginning of another, or of a table's.
        ("[front]\nqueue_max = 1\nqueue_max_bytes = 1\n", "3: queue_max_bytes: must be between"),
    ],
)
def test_mistake_is_reported_with_file_line_and_key(text: str, error: str, file: Path) -> None:
    file.write_text(text)
    assert refused("front", file).startswith(f"{file}:{error}")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[worker]\ntemperature = [\n  0,\n  3\n]\n", "2: temperature[1]: must be between 0 and 2"),
        ('[worker]\n\nlanguages = ["xx"]\n', "3: languages[0]: "),
        ("[worker]\nvad_parameters = 1\n", "2: vad_parameters: must be an object"),
        ("[worker]\n[worker.vad_parameters]\n\nthreshold = 2\n", "4: vad_parameters.threshold: mu"),
        ("[worker]\nvad_parameters.threshold = 2\n", "2: vad_parameters.threshold: must be"),
        ("[worker]\nvad_parameters = { treshold = 0 }\n", "2: unknown key 'vad_parameters.tresh"),
        ("[worker.vad_parameters]\n\ntreshold = 0\n", "3: unknown key 'vad_parameters.treshold'"),
    ],
)
def test_mistake_in_a_list_or_table_is_reported_with_its_line(
    text: str, error: str, file: Path
) -> None:
    file.write_text(text)
    assert refused("worker", file).startswith(f"{file}:{error}")
    own = file.with_name("worker-7.toml")
    own.write_text(text.replace("[worker]\n", "").replace("worker.", ""))
    file.write_text("")
    assert re.sub(r":\d+:", "", refused("worker", file)).startswith(f"{own}{error[2:]}")


def test_mistake_in_a_worker_file_names_that_file(file: Path) -> None:
    own = file.with_name("worker-7.toml")
    own.write_text("\nbeam_size = 0\n")
    assert refused("worker", file) == f"{own}:2: beam_size: must be between 1 and 32"
    own.write_text("[worker]\nbeam_size = 1\n")
    assert refused("worker", file) == f"{own}:1: unknown key 'worker'"
    assert load_worker(file, "8") == WorkerSettings()


def test_unknown_table_is_refused_but_not_a_wrong_other_one(file: Path) -> None:
    file.write_text('[worker]\nbeam_size = "many"\n')
    assert load_front(file) == FrontSettings()
    file.write_text("[woker]\nbeam_size = 1\n")
    assert "unknown table or key 'woker'" in refused("front", file)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[front]\nqueue_max = \n", "line 2"),
        (b"x = " + b"[" * 5000, ""),
        (b"x = " + b"1" * 5000, ""),
        (b"[front]\n# \xff\n", "cannot be read: "),
        (None, "cannot be read: "),
    ],
    ids=["toml", "nested", "digits", "utf-8", "directory"],
)
def test_unreadable_file_is_reported(content: bytes | None, problem: str, file: Path) -> None:
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    error = refused("front", file)
    assert error.startswith(f"{file}: ")
    assert problem in error


@pytest.mark.parametrize(
    ("variable", "text", "error"),
    [
        ("ASRD_FRONT_QUEUE_MAX", "-1", "queue_max: must be between 0 and 100000"),
        ("ASRD_FRONT_QUEUE_MAX", "many", "queue_max: must be an integer"),
        ("ASRD_FRONT_MAX_WAIT_SECONDS", "nan", "max_wait_seconds: must be between 0.001 and"),
        ("ASRD_WORKER_VAD_FILTER", "perhaps", "vad_filter: must be true or false"),
        ("ASRD_WORKER_TEMPERATURE", "[0, 0.2", "temperature: must be a number"),
        ("ASRD_WORKER_SUPPRESS_TOKENS", "1, 2", "suppress_tokens: must be a list"),
        ("ASRD_WORKER_VAD_PARAMETERS", "{ x = 1 }", "vad_parameters.x: is unknown"),
        ("ASRD_WORKER_VAD_PARAMETERS", "[" * 5000, "vad_parameters: must be an object"),
    ],
)
def test_mistake_in_the_environment_names_the_variable(
    variable: str, text: str, error: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    table = variable.split("_")[1].lower()
    assert refused(table, file).startswith(f"{variable}={text!r}: {error}")


@pytest.mark.parametrize(
    ("variable", "table"),
    [
        ("ASRD_FRONT_QUEUE_MX", "front"),
        ("ASRD_FRONT_queue_max", "front"),
        ("ASRD_FRONT_", "front"),
        ("ASRD_WORKER_QUEUE_MAX", "worker"),
    ],
)
def test_variable_that_sets_nothing_is_refused(
    variable: str, table: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "8")
    assert refused(table, file) == f"{variable}: [{table}] has no such key"


def test_other_variables_are_ignored(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "SOCKET", "DEBUG", "LAST_EXIT", "SUPERVISED", "SOAK_SECONDS", "FRONT"):
        monkeypatch.setenv(f"ASRD_{name}", "x")
    monkeypatch.setenv("ASRD_WORKER_NONSENSE", "x")
    assert load_front(file) == FrontSettings()


def test_mistake_in_a_flag_is_reported(file: Path) -> None:
    with pytest.raises(ConfigError, match="flag for socket: is longer than 4096 characters"):
        load_front(file, {"socket": "x" * 5000})


# --- paths ----------------------------------------------------------------------------------------


def test_path_may_begin_with_the_home_directory(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    file.write_text("[front]\nsocket = '~/asrd.sock'\n[worker]\nmodel = '~/models/base'\n")
    assert load_front(file).socket == "/home/ann/asrd.sock"
    assert load_worker(file, "0").model == "/home/ann/models/base"


def test_path_may_have_bytes_that_are_not_utf_8_but_a_model_is_named_to_clients(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASRD_FRONT_SOCKET", "/tmp/\udcff.sock")
    assert load_front(file).socket == "/tmp/\udcff.sock"
    monkeypatch.setenv("ASRD_WORKER_MODEL", "/tmp/\udcff")
    with pytest.raises(ConfigError, match=r"ASRD_WORKER_MODEL=.*: model: is not valid UTF-8"):
        load_worker(file, "0")


def test_model_directory_may_be_relative_to_the_file(file: Path) -> None:
    (file.parent / "models" / "base").mkdir(parents=True)
    for model, read in (
        ("models/base", str(file.parent / "models/base")),
        ("./models", str(file.parent / "models")),
        ("models", "models"),
        ("owner/name", "owner/name"),
    ):
        file.write_text(f"[worker]\nmodel = '{model}'\n")
        assert load_worker(file, "0").model == read


@pytest.mark.parametrize("model", ["~\0/x", "~/\0", "a/\0", "a/" + "ä" * 200])
def test_impossible_path_is_accepted_until_its_use(file: Path, model: str) -> None:
    file.write_text(f"[worker]\nmodel = {json.dumps(model)}\n")
    assert load_worker(file, "0").model.endswith(model[1:])
