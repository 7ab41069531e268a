"""Every command on every page, and where it is run. One that is in no list fails here."""

import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from asrd.demo import SAMPLES
from asrd.settings import WorkerSettings
from tests.support.daemons import Daemon, environment
from tests.support.page_commands import blocks, commands, paragraphs, parse
from tests.support.paths import ROOT
from tests.support.raw import PATIENCE, SHORT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

# The beginnings of blocks that are no commands: output, settings, pictures, the wire.
NOT_COMMANDS = (
    *(
        "Transcribing ",
        "Now ",
        "client ── ",
        "clients ── ",
        "programs, asrctl",
        "/run/asrd/asrd.sock ",
    ),
    *('{"type": "...', "[front]", "[http]", "[Socket]", "location / {", "<!-- make docs"),
    # PromQL: tests/monitoring/test_examples.py.
    "# the part of jobs",
)
# Run in this file as they stand, against a real daemon; `sudo` does nothing.
HERE = """
asrctl transcribe talk.mp3
sudo asrctl transcribe talk.mp3
asrctl transcribe recording.mp3 --format srt
ASRD_DEBUG=wire asrctl transcribe a.wav
asrctl status
asrctl status --crashes
asrctl status --json
asrctl doctor
sudo asrctl doctor
asrctl health
asrctl metrics
"""
# The same, but socat comes with what `-m hosts` needs.
SOCAT = "| socat -t "
# Typed in one go by a test that reads the block from the page.
READ_FROM_PAGE = {
    ("tutorial.md", ""): ["tests/real/test_tutorial.py::test_tutorial_word_for_word"],
    ("http.md", "sh"): ["tests/http/test_whole.py::test_commands_of_the_page"],
    ("home-assistant.md", "sh"): [
        "tests/systemd/test_wyoming.py::test_two_commands_open_the_door_of_a_running_daemon",
        "tests/docs/test_home_assistant_page.py::test_check_by_hand_is_answered",
    ],
    ("scaling.md", "sh"): [
        "tests/hosts/test_failures.py::test_load_loses_nothing_but_what_clients_try_again",
        "tests/hosts/test_queue.py::test_commands_of_the_page",
    ],
}
# Run by another test, perhaps with other names, models or ports, and through the same unit, program
# or function: the commands, and after a tab that test.
ELSEWHERE = """
sudo apt-get build-dep ./packaging	tests/systemd/test_packages.py::test_clean_machine_builds_by_the_lines_of_the_page
packaging/build-deb	tests/systemd/test_packages.py::test_clean_machine_builds_by_the_lines_of_the_page
sudo apt install ./dist/asrd_*.deb ./dist/python3-asrd_*.deb	tests/systemd/test_packages.py::test_every_path_from_installation_to_purge
sudo usermod -aG asr ann	tests/systemd/test_doctor.py::test_user_outside_the_group_gets_in_with_the_next_login
sudo python3 -m venv /opt/asrd	tests/systemd/test_elsewhere.py::test_lines_of_the_page_install_a_service
sudo /opt/asrd/bin/pip install '.[worker]'	tests/systemd/test_elsewhere.py::test_lines_of_the_page_install_a_service
sudo packaging/install-units /opt/asrd	tests/systemd/test_elsewhere.py::test_lines_of_the_page_install_a_service
python3 -m venv .venv && pip install -q '.[worker]' && asrd demo	tests/process/test_transcribe.py::test_demo_shows_a_crash_and_the_same_text
asrd demo --model base	tests/real/test_newcomer.py::test_demo_with_a_real_model
asrd transcribe (talk|recording).mp3	tests/process/test_transcribe.py::test_output_is_that_of_asrctl
(ASRD_DEBUG=\\S+ )?asrd run	tests/process/test_run.py::test_the_bundled_model_is_used_with_a_notice
asrd run --model (base &|small)	tests/real/test_tutorial.py::test_tutorial_word_for_word
asrd run --socket /data/asrd.sock	tests/systemd/test_elsewhere.py::test_first_process_of_a_read_only_root_serves_and_leaves_nothing
kill -SEGV PID	tests/process/test_run.py::test_worker_death_during_a_job_costs_one_retry
sudo asrd fetch-model (base|large-v3-turbo)	tests/engine/fetching/test_hub.py::test_fetched_model_is_found_without_the_network
asrd fetch-model small --to small	tests/engine/fetching/test_carried.py::test_model_is_carried_to_a_machine_without_a_network
sudo asrd add-model /media/stick/small	tests/systemd/test_models.py::test_added_model_is_found_by_its_name
sudo asrd check	tests/systemd/test_deaths.py::test_front_with_a_mistake_in_its_settings_refuses_until_it_is_corrected
sudo asrd add-model speakers	tests/systemd/test_models.py::test_worker_for_speakers_is_set_up_as_documented
echo 'model = "speakers"' | sudo tee /etc/asrd/worker-speakers.toml	tests/systemd/test_models.py::test_worker_for_speakers_is_set_up_as_documented
asrctl transcribe meeting.m4a --(num-)?speakers.*	tests/real/test_speakers.py::test_asrctl_names_who_says_what
sudo asrctl restart-workers	tests/systemd/test_restarts.py::test_workers_restarted_one_after_the_other_are_never_all_away
asrctl top	tests/asrctl/test_top.py::test_job_is_cancelled_on_a_real_terminal
asrctl bench	tests/asrctl/test_bench.py::test_one_client_and_several_are_measured
asrd bench --model small	tests/standalone/test_bench.py::test_each_way_is_measured_with_the_demo_model
asrctl transcribe talk.mp3 --model small --language German .*	tests/peers/test_options.py::test_page_lists_every_option_of_both_and_what_becomes_of_it
sudo systemctl restart asr-workers.target	tests/systemd/test_lifecycle.py::test_restart_of_the_target_includes_failed_workers
sudo systemctl restart asrd	tests/systemd/test_restarts.py::test_restart_of_the_front_hands_its_clients_over
sudo systemctl enable --now asr-worker@(1|small|spare|speakers).socket	tests/systemd/test_lifecycle.py::test_second_worker_joins_and_leaves_without_loss
systemctl status asrd 'asr-worker@\\*'	tests/systemd/test_lifecycle.py::test_systemctl_status_shows_front_and_worker
journalctl .*	tests/systemd/test_lifecycle.py::test_journal_has_the_job_but_not_its_text
systemctl enable --now asrd-http.socket	tests/systemd/test_http.py::test_member_gets_a_transcript_and_is_the_user_of_the_job
sudo systemctl restart asrd-http	tests/hosts/test_failures.py::test_load_loses_nothing_but_what_clients_try_again
asrd-http --socket .* --listen 127.0.0.1:8000	tests/http/test_program.py::test_it_listens_where_it_is_told
curl http://127.0.0.1:8000/(metrics|readyz)	tests/http/test_program.py::test_it_listens_where_it_is_told
install -m 640 -g asrd-http .*	tests/systemd/test_http.py::test_tcp_by_a_drop_in_with_keys
echo "alice sk-.*	tests/systemd/test_http.py::test_tcp_by_a_drop_in_with_keys
promtool check config .*	tests/monitoring/test_prometheus.py::test_prometheus_reads_a_daemon_and_alerts_when_a_worker_crashes_in_a_loop
sudo cp /usr/share/doc/asrd/examples/monitoring/asrd-textfile.* .*	tests/monitoring/test_examples.py::test_textfile_service_writes_the_metrics_or_removes_them
sudo systemctl enable --now asrd-textfile.timer	tests/monitoring/test_examples.py::test_textfile_service_writes_the_metrics_or_removes_them
sudo haproxy -c .*	tests/hosts/test_haproxy.py::test_configuration_goes_with_debians
cat .*haproxy.cfg \\| sudo tee -a .*	tests/hosts/test_haproxy.py::test_configuration_goes_with_debians
python3 .*/redis_consumer.py .*	tests/hosts/test_queue.py::test_each_job_has_one_answer_though_the_daemon_is_busy
pytest -n 0 -s -m hosts tests/hosts/test_failures.py	tests/hosts/test_failures.py::test_load_loses_nothing_but_what_clients_try_again
python -m tests.benchmarks.*	tests/benchmarks/test_benchmarks.py::test_benchmarks_have_help_and_a_command_in_docs
python -m tests.soak .*	tests/soak/test_soak.py::test_campaign_finds_no_broken_promise
python -m tests.fuzz .*	tests/fuzz/test_fuzz.py::test_guided_fuzzing_finds_no_bug
"""  # noqa: E501
# Not run by any test: the reason, and the commands.
NOT_RUN = {
    "a microphone": r"arecord .*\| asrctl transcribe --live",
    "an editor": "sudoedit /etc/asrd/asrd.toml",
    "a GPU": (
        r"packaging/build-cuda-deb .*|(PYTHON=\S+ |OUT=\S+ )?tests/gpu/(run|carry).*"
        r"|python3 .*'.\[cuda\]'"
    ),
    "installs from a package index what the tests need themselves": (
        r"python3 .*'.\[test\]'.*|pip install .*|pytest -m real"
    ),
    "other programs of Debian": (
        r"sudo apt install (avahi-daemon|haproxy socat)|sudo systemctl restart haproxy"
        r"|nft add rule .*|sudo cp .*/etc/avahi/services/|sudo install -D .*asrd.rules.yml"
    ),
}


@cache
def found() -> dict[str, set[tuple[str, str]]]:
    """Each command, with the pages and languages of its blocks."""
    known: dict[str, set[tuple[str, str]]] = {}
    for page in PAGES:
        for language, block in blocks(page):
            if language not in ("", "sh"):
                continue
            for paragraph in paragraphs(block):
                if not paragraph[0].strip().startswith(NOT_COMMANDS):
                    for command in commands(paragraph):
                        place = page.name, language
                        known.setdefault(command.replace(".venv/bin/", ""), set()).add(place)
    return known


def here() -> list[str]:
    return [line for line in HERE.splitlines() if line]


def elsewhere() -> Iterator[tuple[str, str]]:
    for line in filter(None, ELSEWHERE.splitlines()):
        pattern, _, test = line.partition("\t")
        if not re.search(r"\\|\.\*|\([^)]*\|", pattern):
            pattern = re.escape(pattern)
        yield pattern, test


def patterns() -> list[str]:
    return [
        *map(re.escape, here()),
        rf".*{re.escape(SOCAT)}.*,shut-none",
        r"/etc/asrd/.*",
        *(pattern for pattern, _ in elsewhere()),
        *NOT_RUN.values(),
    ]


def test_every_command_is_in_a_list() -> None:
    listed = [re.compile(pattern) for pattern in patterns()]
    unknown = [
        (command, places)
        for command, places in found().items()
        if not places <= READ_FROM_PAGE.keys()
        and not any(pattern.fullmatch(command) for pattern in listed)
    ]
    assert not unknown, "say in this file where these are run"


def test_lists_name_only_what_the_pages_have() -> None:
    gone = [each for each in patterns() if not any(re.fullmatch(each, c) for c in found())]
    assert not gone
    assert {place for places in found().values() for place in places} >= READ_FROM_PAGE.keys()


def test_named_tests_exist() -> None:
    named = [test for _, test in elsewhere()]
    named += [test for tests in READ_FROM_PAGE.values() for test in tests]
    for file, _, test in (each.partition("::") for each in named):
        assert f"\ndef {test}(" in (ROOT / file).read_text(), f"{file}::{test}"


# --- commands that are run here -------------------------------------------------------------------


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    tmp = tmp_path_factory.mktemp("commands")
    for name in ("talk.mp3", "recording.mp3", "a.wav"):
        (tmp / name).write_bytes((SAMPLES / SHORT).read_bytes())
    with Daemon(tmp) as daemon:
        daemon.wait_until_ready()
        yield daemon


def typed(daemon: Daemon, command: str) -> "subprocess.Popen[str]":
    command = re.sub(r"UNIX:\S+?,", f"UNIX:{daemon.socket},", command)
    shell = f'sudo() {{ "$@"; }}; asrctl() {{ {sys.executable} -m asrd.asrctl.cli "$@"; }}; '
    return subprocess.Popen(
        ["bash", "-c", shell + command],
        cwd=daemon.tmp,
        env={**environment(daemon.tmp), "ASRD_SOCKET": daemon.socket},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("command", here())
def test_command_works_as_it_stands(daemon: Daemon, command: str) -> None:
    with typed(daemon, command) as process:
        out, err = process.communicate(timeout=PATIENCE)
    # The machine of the tests may have a fault, such as a full disk.
    assert process.returncode in ((0, 1) if "doctor" in command else (0,)) and out, err


@pytest.mark.hosts
def test_socat_talks_to_the_daemon(daemon: Daemon) -> None:
    spoken = [command for command in found() if SOCAT in command]
    assert len(spoken) >= 3
    for command in spoken:
        kind = (
            "transcript" if "transcribe" in command else "pong" if "ping" in command else "status"
        )
        with typed(daemon, command) as process:
            seen = ""
            while f'"type":"{kind}"' not in seen:
                assert process.stdout is not None
                more = process.stdout.readline()
                assert more, f"{command}: {seen}"
                seen += more
            # It would wait for more.
            os.killpg(process.pid, signal.SIGTERM)


# --- all others -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [c for c in found() if re.search(r"\basr(d|ctl|d-http) ", c)])
def test_every_command_of_asrd_is_understood(command: str) -> None:
    """By the parser of its program, whoever runs it."""
    parse(command)


def test_files_of_a_worker_have_its_settings() -> None:
    files = [command.split(None, 1) for command in found() if command.startswith("/etc/asrd/")]
    assert len(files) >= 5
    for path, text in files:
        if path.endswith(".toml"):
            keys = tomllib.loads(text.removeprefix("[worker]").strip())
            assert keys.keys() <= WorkerSettings.__dataclass_fields__.keys()
        else:
            assert re.fullmatch(r"[A-Z_]+=\d+", text)


def test_block_of_a_page_is_read_as_a_shell_does(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Text.\n\n    $ a \\\n        b   # why\n    output\n\n- list\n    no block\n\n"
        "```sh\nc 'x' | d\n```\n\n    # only a comment\n    e\n\nText.\n"
    )
    read = [(language, *map(commands, paragraphs(block))) for language, block in blocks(page)]
    assert read == [("", ["a b"]), ("sh", ["c 'x' | d"]), ("", ["e"])]
