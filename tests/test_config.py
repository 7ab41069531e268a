"""Every setting, from every source; and each mistake told with file, line and key."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from asrd.config import DEFAULT_CONFIG, config_path, load_front, load_worker
from asrd.errors import ConfigError
from asrd.settings import TABLES, FrontSettings, WorkerSettings

KEYS = [(table, spec) for table, cls in TABLES.items() for spec in dataclasses.fields(cls)]
NAMES = [f"{table}.{spec.name}" for table, spec in KEYS]
# A value of each key that is not its default.
OTHERS: dict[str, Any] = {
    "socket": "/tmp/x.sock",
    "status_socket": "/tmp/s.sock",
    "worker_dir": "/tmp/w",
    "device": "cpu",
    "compute_type": "int8",
    "model": "tiny",
    "language": "en",
    "log_level": "debug",
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
    return load_front(file) if table == "front" else load_worker(file, "7")


def other(spec: dataclasses.Field[Any]) -> Any:
    default: Any = spec.default
    if isinstance(default, bool):
        return not default
    return OTHERS[spec.name] if spec.name in OTHERS else default + 1


def refused(table: str, file: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(table, file)
    return str(caught.value)


# --- where a value may come from ------------------------------------------------------------------


def test_without_a_file_there_are_the_defaults(file: Path) -> None:
    assert load_front(file) == FrontSettings()
    assert load_worker(file, "0") == WorkerSettings()
    file.write_text("")
    assert load_front(file) == FrontSettings()


@pytest.mark.parametrize(("table", "spec"), KEYS, ids=NAMES)
def test_every_key_can_be_set_in_the_file(
    table: str, spec: dataclasses.Field[Any], file: Path
) -> None:
    value = other(spec)
    file.write_text(f"[{table}]\n{spec.name} = {json.dumps(value)}\n")
    assert load(table, file) == TABLES[table](**{spec.name: value})


@pytest.mark.parametrize(("table", "spec"), KEYS, ids=NAMES)
def test_every_key_can_be_set_in_the_environment_over_the_file(
    table: str, spec: dataclasses.Field[Any], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = other(spec)
    file.write_text(f"[{table}]\n{spec.name} = {json.dumps(spec.default)}\n")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    monkeypatch.setenv(f"ASRD_{table}_{spec.name}".upper(), text)
    assert load(table, file) == TABLES[table](**{spec.name: value})


@pytest.mark.parametrize(("table", "spec"), KEYS, ids=NAMES)
def test_every_key_is_read_from_the_file_with_its_type(
    table: str, spec: dataclasses.Field[Any], file: Path
) -> None:
    file.write_text(f"# One\n[{table}]\n\n{spec.name} = [1]\n")
    assert refused(table, file).startswith(f"{file}:4: {spec.name}: must be ")


@pytest.mark.parametrize(("table", "spec"), KEYS, ids=NAMES)
def test_every_key_has_a_help(table: str, spec: dataclasses.Field[Any]) -> None:
    assert spec.metadata["help"].strip()[-1] in ".…"
    assert "\n" not in spec.metadata["help"]


def test_a_worker_has_a_file_of_its_own_over_the_common_one(file: Path) -> None:
    file.write_text('[worker]\nmodel = "base"\nbeam_size = 2\n[front]\nqueue_max = 9\n')
    file.with_name("worker-gpu1.toml").write_text('model = "large"\n')
    assert load_worker(file, "gpu1") == WorkerSettings(model="large", beam_size=2)
    assert load_worker(file, "gpu2") == WorkerSettings(model="base", beam_size=2)


def test_flags_go_over_the_environment_and_over_all_files(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('[front]\nsocket = "/file"\nqueue_max = 9\n')
    monkeypatch.setenv("ASRD_FRONT_SOCKET", "/environment")
    assert load_front(file, {"socket": None}).socket == "/environment"
    assert load_front(file, {"socket": "/flag"}) == FrontSettings(socket="/flag", queue_max=9)


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("1", True), ("Yes", True), ("false", False), ("0", False), (" no ", False)],
)
def test_a_switch_in_the_environment(
    text: str, value: bool, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASRD_WORKER_VAD_FILTER", text)
    assert load_worker(file, "0").vad_filter is value


# --- which file -----------------------------------------------------------------------------------


def test_the_file_is_named_by_flag_environment_or_custom(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config_path() == DEFAULT_CONFIG
    monkeypatch.setenv("ASRD_CONFIG", "/from/environment.toml")
    assert config_path() == Path("/from/environment.toml")
    file.write_text("")
    assert config_path(str(file)) == file


def test_a_file_that_was_asked_for_must_be_there(file: Path) -> None:
    with pytest.raises(ConfigError, match=f"{file}: there is no such file"):
        config_path(str(file))


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
        ("[front]\nqueue_max = 1.0\n", "2: queue_max: must be an integer"),
        ("[front]\nqueue_max = true\n", "2: queue_max: must be an integer"),
        ("[front]\nqueue_max = 2026-01-01\n", "2: queue_max: must be an integer"),
        ("[front]\nmax_wait_seconds = nan\n", "2: max_wait_seconds: must be between 0.001 and"),
        ("[front]\nmax_wait_seconds = inf\n", "2: max_wait_seconds: must be between 0.001 and"),
        ('[front]\nlog_level = "loud"\n', "2: log_level: must be one of debug, info, warning"),
        ("[front]\nsocket = 7\n", "2: socket: must be a string"),
        # The same key stands in another table, too, and in a comment.
        ('[worker]\nlog_level = "info"\n[front]\n#log_level\nlog_level = 1\n', "5: log_level: mu"),
        ('[front]\n"queue_max" = "x"\n', "2: queue_max: must be an integer"),
        ("\nfront.queue_max = -1\n", "2: queue_max: must be between"),
        ("\nfront = { queue_max = -1 }\n", "2: queue_max: must be between"),
        ("[ 'front' ]\n\nqueue_max= -1\n", "3: queue_max: must be between"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_key(text: str, error: str, file: Path) -> None:
    file.write_text(text)
    assert refused("front", file).startswith(f"{file}:{error}")


def test_a_mistake_in_a_workers_own_file_is_told_with_that_file(file: Path) -> None:
    own = file.with_name("worker-7.toml")
    own.write_text("\nbeam_size = 0\n")
    assert refused("worker", file) == f"{own}:2: beam_size: must be between 1 and 32"
    own.write_text("[worker]\nbeam_size = 1\n")
    assert refused("worker", file) == f"{own}:1: unknown key 'worker'"
    assert load_worker(file, "8") == WorkerSettings()


def test_each_program_reads_its_own_table_and_still_refuses_an_unknown_one(file: Path) -> None:
    file.write_text('[worker]\nbeam_size = "many"\n')
    assert load_front(file) == FrontSettings()
    file.write_text("[woker]\nbeam_size = 1\n")
    assert "unknown table or key 'woker'" in refused("front", file)


def test_bad_toml_is_told_with_its_line(file: Path) -> None:
    file.write_text("[front]\nqueue_max = \n")
    error = refused("front", file)
    assert error.startswith(f"{file}: ")
    assert "line 2" in error


@pytest.mark.parametrize("value", ["[" * 5000, "1" * 5000], ids=["nested", "digits"])
def test_toml_that_is_too_much_for_its_parser_is_told(value: str, file: Path) -> None:
    file.write_text(f"[front]\nqueue_max = {value}")
    assert refused("front", file).startswith(f"{file}: ")


@pytest.mark.parametrize("kind", ["directory", "not utf-8", "under a file"])
def test_a_file_that_can_not_be_read_is_told(kind: str, file: Path) -> None:
    if kind == "directory":
        file.mkdir()
    elif kind == "not utf-8":
        file.write_bytes(b"[front]\n# \xff\n")
    else:
        file.write_text("")
        file /= "asrd.toml"
    assert refused("front", file).startswith(f"{file}: cannot be read: ")


def test_a_file_without_permission_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    # Root, who runs tests in a container, may read everything.
    monkeypatch.setattr(Path, "read_text", refuse)
    assert refused("front", file) == f"{file}: cannot be read: [Errno 13] Permission denied"


@pytest.mark.parametrize(
    ("variable", "text", "error"),
    [
        ("ASRD_FRONT_QUEUE_MAX", "-1", "queue_max: must be between 0 and 100000"),
        ("ASRD_FRONT_QUEUE_MAX", "many", "invalid literal"),
        ("ASRD_FRONT_QUEUE_MAX", "1.5", "invalid literal"),
        ("ASRD_FRONT_QUEUE_MAX", "", "invalid literal"),
        ("ASRD_FRONT_MAX_WAIT_SECONDS", "nan", "max_wait_seconds: must be between 0.001 and"),
        ("ASRD_FRONT_LOG_LEVEL", "loud", "log_level: must be one of"),
        ("ASRD_WORKER_VAD_FILTER", "perhaps", "vad_filter: must be true or false"),
    ],
)
def test_a_mistake_in_the_environment_is_told_with_the_variable(
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
def test_a_variable_that_sets_nothing_is_told(
    variable: str, table: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "8")
    assert refused(table, file) == f"{variable}: [{table}] has no such key"


def test_other_variables_are_no_settings(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "SOCKET", "DEBUG", "LAST_EXIT", "SUPERVISED", "SOAK_SECONDS", "FRONT"):
        monkeypatch.setenv(f"ASRD_{name}", "x")
    monkeypatch.setenv("ASRD_WORKER_NONSENSE", "x")
    assert load_front(file) == FrontSettings()


def test_a_mistake_in_a_flag_is_told(file: Path) -> None:
    with pytest.raises(ConfigError, match="flag for socket: is longer than 4096 characters"):
        load_front(file, {"socket": "x" * 5000})


# --- paths ----------------------------------------------------------------------------------------


def test_a_path_may_begin_at_home(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    file.write_text("[front]\nsocket = '~/asrd.sock'\n[worker]\nmodel = '~/models/base'\n")
    assert load_front(file).socket == "/home/ann/asrd.sock"
    assert load_worker(file, "0").model == "/home/ann/models/base"


def test_a_models_directory_may_be_relative_to_the_file(file: Path) -> None:
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
def test_a_path_that_can_be_none_fails_no_earlier_than_its_use(file: Path, model: str) -> None:
    file.write_text(f"[worker]\nmodel = {json.dumps(model)}\n")
    assert load_worker(file, "0").model.endswith(model[1:])
