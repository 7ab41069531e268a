"""The page in a real browser, with a real daemon behind it."""

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asrd.demo import SAMPLES
from tests.support.browser import OTHER_HOST, Browser
from tests.support.daemons import Daemon, Front, crashing_model
from tests.support.fake_daemon import READY, FakeDaemon, begin
from tests.support.http import HttpProgram, wait_until_ready
from tests.support.raw import LONG, SHORT, TEXTS, wait_for
from tests.support.raw import done as answer

pytestmark = pytest.mark.browser

TEXT = TEXTS[SHORT]
KEY = "sk-of-a-friend-0001"
CARD = "article"
MARKUP = "<img src=x onerror=hacked=1>"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("d"), "--spares", "1") as running:
        yield running


@pytest.fixture(scope="module")
def program(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpProgram]:
    settings = f"drain_seconds = 0\nhosts = ['{OTHER_HOST}']\nmax_upload_bytes = 10_000_000"
    with HttpProgram(tmp_path_factory.mktemp("h"), daemon.socket, settings) as running:
        wait_until_ready(running)
        yield running


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("b"), SAMPLES / SHORT) as running:
        yield running


@pytest.fixture
def browser(chromium: Browser, program: HttpProgram) -> Iterator[Browser]:
    """The page, fresh; no test may break its policy."""
    chromium.show(1000, 1200)
    chromium.open(address(program))
    chromium.wait_for_text("Ready")
    yield chromium
    assert "Content Security Policy" not in str(chromium.complaints())


def address(program: HttpProgram, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{program.port}/"


def choose(browser: Browser, name: str, value: str) -> None:
    browser.run(
        "const it = document.getElementById(arguments[0]); it.value = arguments[1];", name, value
    )


def done(browser: Browser, card: str = CARD) -> str:
    browser.wait_for_text("Done", f"{card} .state")
    return browser.text(f"{card} .text")


def busy(daemon: Daemon | Front) -> Any:
    return next((w for w in daemon.status()["workers"] if w["jobs"]), None)


# --- files ----------------------------------------------------------------------------------------


def test_dropped_recording_becomes_text_and_files(browser: Browser) -> None:
    browser.drop(SAMPLES / SHORT)
    assert TEXT in done(browser)
    assert browser.text(f"{CARD} .state") == "Done · English"
    browser.button(".txt").click()
    assert browser.download("en-4.txt") == TEXT + "\n"
    browser.button(".srt").click()
    times = r"1\n00:00:00,\d+ --> 00:00:03,\d+\n"
    assert re.fullmatch(times + TEXT + "\n\n", browser.download("en-4.srt"))
    browser.button(".vtt").click()
    assert browser.download("en-4.vtt").startswith("WEBVTT\n\n00:00:00.")
    browser.button(".json").click()
    found = json.loads(browser.download("en-4.json"))
    assert (found["file"], found["text"]) == (SHORT, TEXT)
    browser.button("Remove").click()
    assert not browser.text(CARD)


def test_several_recordings_and_all_options(browser: Browser, daemon: Daemon) -> None:
    browser.one("#words").click()
    choose(browser, "language", "en")
    choose(browser, "task", "translate")
    choose(browser, "model", "demo")
    names = ["en-0.wav", "en-1.wav", "en-2.wav", SHORT]
    browser.drop(*(SAMPLES / name for name in names))
    for position in range(1, len(names) + 1):
        done(browser, f"{CARD}:nth-child({position})")
    assert TEXT in browser.text(f"{CARD}:first-child .text")
    words = browser.driver.find_elements("css selector", f"{CARD}:first-child .word")
    assert [word.text.strip() for word in words] == TEXT.split()
    words[-1].click()
    played = wait_for(
        "the recording to play from that word",
        lambda: browser.run("return document.querySelector('article audio').currentTime"),
    )
    assert played > 2


def test_text_can_be_copied(browser: Browser, program: HttpProgram) -> None:
    """Copying works with the clipboard, and on pages that browsers give none."""
    browser.permit("clipboard-read", "granted")
    for host in ("127.0.0.1", OTHER_HOST):
        browser.open(address(program, host))
        browser.wait_for_text("Ready")
        browser.drop(SAMPLES / SHORT)
        done(browser)
        browser.button("Copy text").click()
        browser.wait_for_text("Copied", CARD)
        browser.open(address(program))
        script = "return navigator.clipboard.readText().then((text) => text.trim())"
        assert TEXT in browser.run(script)
        browser.run("return navigator.clipboard.writeText('')")


def test_segments_arrive_while_the_job_runs_and_stop_ends_it(
    browser: Browser, daemon: Daemon
) -> None:
    accepted = daemon.status()["jobs"]["accepted"]
    browser.drop(SAMPLES / LONG)
    browser.wait_for_text("0:0", f"{CARD} .text")
    assert re.match(r"\d:\d\d of 0:59", browser.text(f"{CARD} .state"))
    assert 0 < browser.run("return document.querySelector('article progress').value") < 1
    browser.button("Stop", CARD).click()
    browser.wait_for_text("Stopped", CARD)
    wait_for("the job to end", lambda: not busy(daemon))
    status = daemon.status()["jobs"]
    assert status["accepted"] == accepted + 1 and status["failed"]["cancelled"] >= 1
    browser.button("Try again", CARD).click()
    assert TEXTS[LONG].split()[0] in done(browser)


def test_killed_worker_costs_only_time(browser: Browser, daemon: Daemon) -> None:
    browser.drop(SAMPLES / LONG)
    whole = done(browser)
    browser.button("Remove").click()
    browser.drop(SAMPLES / LONG)
    browser.wait_for_text("0:0", f"{CARD} .text")
    os.kill(busy(daemon)["pid"], signal.SIGKILL)
    assert done(browser) == whole
    daemon.wait_until_ready()


def test_wrong_files_have_clear_messages(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "letter.odt").write_bytes(b"no recording at all")
    browser.drop(tmp_path / "letter.odt")
    browser.wait_for_text("This file is not a media file", f"{CARD} .state.bad")
    # The player finds out by itself that it can't play this.
    wait_for("no player", lambda: not browser.one(f"{CARD} audio").is_displayed())
    (tmp_path / "empty.wav").touch()
    browser.drop(tmp_path / "empty.wav")
    browser.wait_for_text("empty", f"{CARD} .state.bad")
    (tmp_path / "folder").mkdir()
    browser.drop(tmp_path / "folder")
    browser.wait_for_text("This can't be read: it is a folder", f"{CARD} .state")


def test_too_large_recording_has_a_clear_message(browser: Browser, tmp_path: Path) -> None:
    with open(tmp_path / "large.wav", "wb") as file:
        file.truncate(40_000_000)
    browser.drop(tmp_path / "large.wav")
    browser.wait_for_text("This file is larger than", f"{CARD} .state")


def test_damaged_recording_has_a_note(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "damaged.wav").write_bytes((SAMPLES / SHORT).read_bytes()[:-20_000])
    browser.drop(tmp_path / "damaged.wav")
    done(browser)
    browser.wait_for_text("Note: ", f"{CARD} .state")


# --- texts that want to be more -------------------------------------------------------------------


def test_name_of_a_file_stays_text(browser: Browser, tmp_path: Path) -> None:
    name = f"{MARKUP}\"'>\u202egnp.wav"
    shutil.copy(SAMPLES / SHORT, tmp_path / name)
    browser.drop(tmp_path / name)
    done(browser)
    assert browser.run("return document.querySelector('article h3').textContent") == name
    assert not browser.run("return window.hacked || document.querySelector('main img')")


def test_text_of_a_transcript_stays_text(chromium: Browser, tmp_path: Path) -> None:
    text = f"{MARKUP}\u202eback"
    segment = {"id": 0, "start": 0.0, "end": 1.0, "text": f" {text}"}
    with (
        Front(tmp_path, "0") as front,
        HttpProgram(tmp_path, front.socket, "drain_seconds = 0") as program,
        front.ready(model=MARKUP) as worker,
    ):
        chromium.open(address(program))
        chromium.wait_for_text("Ready")
        chromium.drop(SAMPLES / SHORT)
        job = worker.start_job()
        worker.send("done", {**answer(job["key"], MARKUP), "segments": [segment]})
        assert done(chromium) == f"0:00\n{text}"
        chromium.one("summary").click()
        chromium.wait_for_text(MARKUP, "#workers")
        assert not chromium.run("return window.hacked || document.querySelector('main img')")
        assert "Content Security Policy" not in str(chromium.complaints())
        # What gets in all the same is not run.
        chromium.run("document.body.appendChild(document.createElement('img')).src = 'data:,'")
        script = "return document.body.setHTMLUnsafe(arguments[0])"
        with pytest.raises(Exception, match="TrustedHTML"):
            chromium.run(script, MARKUP)


# --- the microphone -------------------------------------------------------------------------------


def test_recording_of_the_microphone_becomes_text(browser: Browser) -> None:
    browser.permit("microphone", "granted")
    choose(browser, "language", "en")
    browser.button("Record").click()
    browser.wait_for_text("0:04", "#clock")
    assert browser.one("#level").is_displayed()
    browser.button("Stop and transcribe").click()
    # The recorder hands over its last piece before there is a recording to show.
    assert TEXT in done(browser)
    assert browser.text(f"{CARD} h3").endswith(".webm")


def test_recording_can_be_discarded(browser: Browser) -> None:
    browser.permit("microphone", "granted")
    browser.button("Record").click()
    browser.wait_for_text("0:01", "#clock")
    browser.button("Discard").click()
    wait_for("the end", lambda: not browser.one("#recording").is_displayed())
    assert browser.button("Record") and not browser.text(CARD)


def test_refused_microphone_has_a_clear_message(browser: Browser) -> None:
    browser.permit("microphone", "denied")
    browser.button("Record").click()
    browser.wait_for_text("The browser refuses the microphone", "#message")
    assert browser.button("Record").is_enabled()


def test_page_of_another_host_over_plain_http_says_that_it_cannot_record(
    browser: Browser, program: HttpProgram
) -> None:
    browser.open(address(program, OTHER_HOST))
    browser.wait_for_text("Recording needs HTTPS", "#record-note")
    assert not browser.button("Record").is_enabled()
    browser.drop(SAMPLES / SHORT)
    assert TEXT in done(browser)


# --- the server's state ---------------------------------------------------------------------------


def test_busy_server_is_asked_again(chromium: Browser, tmp_path: Path) -> None:
    with (
        Front(tmp_path, "0", config="queue_max = 1") as front,
        HttpProgram(tmp_path, front.socket, "drain_seconds = 0") as program,
        front.ready() as worker,
        front.connect() as other,
    ):
        chromium.open(address(program))
        chromium.wait_for_text("Ready")
        other.ask("first")
        job = worker.start_job()
        other.ask("second")
        chromium.wait_for_text("1 waiting", "#server")
        # A user who has nothing there yet always gets a place, and then no second one.
        chromium.drop(SAMPLES / SHORT, SAMPLES / LONG)
        chromium.wait_for_text("The server is busy: the queue is full", "#list")
        worker.send("done", answer(job["key"]))
        for _ in range(3):
            worker.serve_job()
        for position in (1, 2):
            done(chromium, f"{CARD}:nth-child({position})")


def test_recording_that_kills_workers_is_named_and_not_sent_again(
    chromium: Browser, tmp_path: Path
) -> None:
    config = f"[worker]\nmodel = '{crashing_model(tmp_path)}'\ncheck_model = false\n"
    directory = tmp_path / "d"
    directory.mkdir()
    with Daemon(directory, config=config) as daemon:
        with HttpProgram(tmp_path, daemon.socket, "drain_seconds = 0") as program:
            wait_until_ready(program)
            chromium.open(address(program))
            chromium.one("#words").click()
            chromium.drop(SAMPLES / SHORT)
            chromium.wait_for_text("worker", f"{CARD} .state.bad")
            assert daemon.status()["jobs"]["accepted"] == 1


def test_restart_in_the_middle_of_a_recording_is_said(chromium: Browser, tmp_path: Path) -> None:
    settings = "drain_seconds = 0\nstop_seconds = 0.1"
    with (
        FakeDaemon(tmp_path / "asrd.sock", [begin("one")], others=READY) as fake,
        HttpProgram(tmp_path, fake.path, settings) as program,
    ):
        chromium.open(address(program))
        chromium.drop(SAMPLES / SHORT)
        chromium.wait_for_text("one", f"{CARD} .text")
        program.terminate()
        chromium.wait_for_text("The server restarts, and stopped this", f"{CARD} .state.bad")
        assert chromium.text(f"{CARD} .text").endswith("one")


def test_offline_is_said_and_ends(chromium: Browser, daemon: Daemon, tmp_path: Path) -> None:
    with HttpProgram(tmp_path, daemon.socket, "drain_seconds = 0") as program:
        chromium.open(address(program))
        chromium.wait_for_text("Ready")
        network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        chromium.command("Network.enable", {})
        chromium.command("Network.emulateNetworkConditions", {"offline": True, **network})
        chromium.wait_for_text("Offline", "#server")
        chromium.drop(SAMPLES / SHORT)
        chromium.wait_for_text("The server does not answer", f"{CARD} .state")
        chromium.command("Network.emulateNetworkConditions", {"offline": False, **network})
        chromium.wait_for_text("Ready", "#server")
        chromium.button("Try again", CARD).click()
        assert TEXT in done(chromium)


def test_daemon_that_is_away_is_said(chromium: Browser, tmp_path: Path) -> None:
    with HttpProgram(tmp_path, str(tmp_path / "nowhere.sock"), "drain_seconds = 0") as program:
        chromium.open(address(program))
        chromium.wait_for_text("Not ready", "#server")
        chromium.drop(SAMPLES / SHORT)
        chromium.wait_for_text("The server can't take it now: ", f"{CARD} .state")


def test_key_is_asked_for_used_and_forgotten(
    chromium: Browser, daemon: Daemon, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.touch(0o600)
    keys.write_text(f"friend {KEY}\n")
    settings = f"drain_seconds = 0\napi_keys = '{keys}'"
    with HttpProgram(tmp_path, daemon.socket, settings) as program:
        chromium.open(address(program))
        chromium.wait_for_text("Wants an API key", "#server")
        chromium.drop(SAMPLES / SHORT)
        chromium.wait_for_text("Waits for a valid API key", f"{CARD} .state")
        for wrong, message in (("Schlüssel", "only letters"), ("sk-wrong", "does not know")):
            chromium.one("#key").send_keys(wrong)
            chromium.button("Use this key").click()
            chromium.wait_for_text(message, "#message")
            chromium.one("#key").clear()
        chromium.one("#key").send_keys(KEY)
        chromium.button("Use this key").click()
        assert TEXT in done(chromium)
        assert not chromium.one("#key-form").is_displayed()
        assert not chromium.run("return localStorage.length || document.cookie.length")
        chromium.driver.refresh()
        chromium.wait_for_text("Ready", "#server")


def test_queue_and_workers_are_shown(browser: Browser, daemon: Daemon) -> None:
    browser.one("summary").click()
    browser.wait_for_text("of at most 64 recordings wait", "#queue")
    for word in ("demo", "cpu", "ready"):
        browser.wait_for_text(word, "#workers")
    assert browser.run("return [...document.getElementById('model').options].map((o) => o.value)")


# --- for everybody --------------------------------------------------------------------------------


def test_keyboard_alone_is_enough(browser: Browser) -> None:
    browser.drop(SAMPLES / SHORT)
    done(browser)
    names = []
    for _ in range(30):
        browser.tab()
        names.append(
            browser.run(
                "const it = document.activeElement;"
                "return it.ariaLabel || it.labels?.[0]?.innerText || it.innerText || it.localName"
            )
        )
    wanted = ["Choose files", "Record", "Language spoken", "Text in", "Model", "Time of each word"]
    wanted += ["Transcript", "Play from 0:00", "Copy text", "Download txt", f"Remove {SHORT}"]
    positions = [names.index(name) for name in [*wanted, "Queue and workers"]]
    assert positions == sorted(positions), names


def test_all_that_can_have_the_focus_has_a_name(browser: Browser) -> None:
    browser.drop(SAMPLES / SHORT)
    done(browser)
    found = browser.focusable_names()
    assert len(found) > 20
    assert not [role for role, name in found if not name]
    assert browser.run("return document.documentElement.lang") == "en"
    assert browser.run("return document.getElementById('news').textContent") == (
        f"{SHORT}: Done · English"
    )


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 1000])
def test_contrast_and_width(browser: Browser, tmp_path: Path, dark: bool, width: int) -> None:
    """Contrast as WCAG 2.2 (1.4.3) wants it, and no page that is wider than a phone (1.4.10)."""
    browser.show(width, 1200, dark=dark)
    name = "x" * 200 + ".odt"
    (tmp_path / name).write_bytes(b"no recording")
    browser.drop(tmp_path / name, SAMPLES / SHORT)
    done(browser)
    browser.wait_for_text("Try again")
    browser.one("summary").click()
    browser.permit("microphone", "denied")
    browser.button("Record").click()
    browser.wait_for_text("microphone", "#message")
    assert browser.run("return document.documentElement.scrollWidth") <= width
    checked, poor = browser.run(CONTRAST)
    assert checked > 20 and not poor


# Texts with their contrast to the background below them.
CONTRAST = """
const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
const light = (color) => numbers(color).slice(0, 3).map((value) => value / 255)
  .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
  .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
const below = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const color = getComputedStyle(at).backgroundColor;
    if ((numbers(color)[3] ?? 1) === 1) return color;
  }
};
const poor = [];
let checked = 0;
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  const shown = element.checkVisibility() && !element.disabled && element.localName !== "option";
  if (!own || !shown) continue;
  checked += 1;
  const [one, other] = [light(getComputedStyle(element).color), light(below(element))];
  const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  if (contrast < 4.5) poor.push(`${element.innerText}: ${contrast}`);
}
return [checked, poor];
"""
