"""`asrd check`: the checks of `asrctl doctor` that concern the next start, before a restart."""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from asrd.asrctl import checks, unit_checks
from asrd.asrctl.doctor import examine
from asrd.asrctl.finding import Finding, Verdict, ok, unseen, wrong
from asrd.asrctl.gpu_checks import gpu_setup
from asrd.asrctl.host import Host
from asrd.asrctl.model_checks import configured_models
from asrd.asrctl.streams import mention
from asrd.config import config_path, load_http
from asrd.errors import ConfigError
from asrd.safe_text import escape


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="the settings file (asrd.toml)")


def check(args: argparse.Namespace) -> int:
    """Prints a line for each finding. Returns 1 if a restart would not go well, otherwise 0, also
    if something could not be examined. Raises ConfigError if the flag names a missing file."""
    host = Host()
    host.config = config_path(args.config)
    results = list(examine(host, (settings, http, models, sockets, gpu)))
    for subject, item in results:
        mark = "WRONG" if item.verdict is Verdict.WRONG else item.verdict.value
        mention(escape(f"{mark:6} {subject}: {item.text}") + "\n")
    verdicts = [item.verdict for _, item in results]
    if Verdict.UNSEEN in verdicts:
        mention("not everything could be seen (try as root: sudo asrd check)\n")
    return int(Verdict.WRONG in verdicts)


def settings(host: Host) -> Iterator[Finding]:
    """The files that this user can read; the daemon may be able to read others."""
    closed = [file for file in _files(host) if not os.access(file, os.R_OK)]
    for file in closed:
        yield unseen(f"{file} is closed to {host.user()}")
    if not closed:
        yield from checks.settings(host)


def http(host: Host) -> Iterator[Finding]:
    """The table [http], which `asrctl doctor` leaves to asrd-http."""
    if host.config.exists() and not os.access(host.config, os.R_OK):
        return
    try:
        load_http(host.config)
    except ConfigError as error:
        yield wrong(str(error))
    else:
        yield ok("[http] is in order")


def models(host: Host) -> Iterator[Finding]:
    """The models of the settings, since the next start takes those."""
    yield from configured_models(host)


def sockets(host: Host) -> Iterator[Finding]:
    """The socket units. Without units there is nothing before `asrd run`."""
    if host.is_installed():
        yield from unit_checks.startable_sockets(host)


def gpu(host: Host) -> Iterator[Finding]:
    """Needs of the next workers, and not where the present ones run."""
    yield from gpu_setup(host)


def _files(host: Host) -> list[Path]:
    files = [host.config, *sorted(host.config.parent.glob("worker-*.toml"))]
    return [file for file in files if file.exists()]
