"""asrctl: transcribe, and ask the daemon how it is."""

import argparse
import math
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from asrd.asrctl import doctor, prometheus, streams, transcribing
from asrd.asrctl.progress import can_redraw
from asrd.asrctl.streams import OutputLost, complain, mention, show
from asrd.asrctl.table import crash_page, health_line, page, read_snapshot
from asrd.client.client import Client
from asrd.errors import AsrdError, ConnectionLost
from asrd.exitcodes import HEALTH, HEALTH_CODES, Exit, exit_code
from asrd.safe_text import fit, fit_json
from asrd.settings import DEFAULT_SOCKET
from asrd.version import __version__

T = TypeVar("T")

# The public socket beside the default one: it answers nothing but how the daemon is.
# With the start of this program, a stuck daemon is told within a second.
_HEALTH_SECONDS = 0.5
STATUS_SOCKET = str(Path(DEFAULT_SOCKET).with_name("status.sock"))


def status(args: argparse.Namespace) -> int:
    snapshot = _ask(args, lambda client: client.status(crashes=args.crashes))
    if args.json:
        show(fit_json(snapshot, indent=True) + "\n")
    elif args.crashes:
        show(crash_page(read_snapshot(snapshot)))
    else:
        show(page(read_snapshot(snapshot)))
    return Exit.OK


def health(args: argparse.Namespace) -> int:
    try:
        snapshot = read_snapshot(_ask(args, lambda client: client.status(timeout=args.timeout)))
    except (AsrdError, OSError) as error:
        mention(fit(f"unreachable: {error}") + "\n")
        return Exit.UNREACHABLE
    mention(health_line(snapshot) + "\n")
    return HEALTH.get(snapshot.state, HEALTH["unavailable"])


def metrics(args: argparse.Namespace) -> int:
    show(prometheus.metrics(read_snapshot(_ask(args, Client.status))))
    return Exit.OK


def watch(args: argparse.Namespace) -> int:
    """Until Ctrl-C, which is the way to end it and no failure."""
    on_terminal = can_redraw(sys.stdout)
    try:
        while True:
            try:
                snapshot = read_snapshot(_ask(args, Client.status))
                text = page(snapshot) if on_terminal else health_line(snapshot) + "\n"
            except AsrdError as error:
                text = fit(f"unreachable: {error}") + "\n"
            # Home, then clear: rather than line by line, so that nothing of the last page stays.
            before = "\x1b[H\x1b[2J" if on_terminal else f"{datetime.now():%H:%M:%S} "
            show(before + text)
            time.sleep(args.interval)
    except KeyboardInterrupt:
        return Exit.OK


def ping(args: argparse.Namespace) -> int:
    path, seconds = _ask(args, lambda client: (client.socket, client.ping()))
    mention(fit(f"{path} answered in {seconds * 1000:.2f} ms") + "\n")
    return Exit.OK


def cancel(args: argparse.Namespace) -> int:
    with Client(args.socket) as client:
        count = client.cancel(args.job_id)
    if not count:
        complain(f"there is no job {args.job_id} of yours")
        return Exit.FAILED
    mention(f"cancelled {count} job{'' if count == 1 else 's'}\n")
    return Exit.OK


def describe(args: argparse.Namespace) -> int:
    show(fit_json(_ask(args, Client.describe), indent=True) + "\n")
    return Exit.OK


def _ask(args: argparse.Namespace, question: Callable[[Client], T]) -> T:
    """Put a question that the public status socket answers too, for those not in the group."""
    try:
        with Client(args.socket) as client:
            return question(client)
    except ConnectionLost as error:
        named = args.socket or os.environ.get("ASRD_SOCKET")
        if named or not isinstance(error.__cause__, PermissionError):
            raise
        denied = error
    try:
        with Client(STATUS_SOCKET) as client:
            return question(client)
    except ConnectionLost:
        raise denied from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.1 <= seconds <= 86400:
        raise argparse.ArgumentTypeError("must be 0.1 to 86400 seconds")
    return seconds


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="asrctl", description="Speech to text by the asrd daemon, and how the daemon is."
    )
    parser.add_argument("--version", action="version", version=f"asrctl {__version__}")
    # Also accepted behind the command, where most people write it.
    common = argparse.ArgumentParser(add_help=False)
    for where, default in ((parser, None), (common, argparse.SUPPRESS)):
        where.add_argument(
            "--socket",
            metavar="PATH",
            default=default,
            help=f"default: $ASRD_SOCKET, else {DEFAULT_SOCKET}, else your own `asrd run`'s",
        )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(function: Callable[[argparse.Namespace], int], text: str) -> Any:
        added = commands.add_parser(
            function.__name__,
            parents=[common],
            help=text,
            description=text[0].upper() + text[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(function=function, parser=added)
        return added

    transcribing.add_arguments(command(transcribing.transcribe, "turn recordings into text"))
    shown = command(status, "queue, workers, counts and timings")
    shown.add_argument("--json", action="store_true", help="the snapshot as the daemon sends it")
    shown.add_argument(
        "--crashes", action="store_true", help="how the workers died, the last 20 times"
    )
    asked = command(health, "one line, and an exit code for monitoring")
    asked.epilog = HEALTH_CODES
    asked.add_argument(
        "--timeout",
        type=_seconds,
        default=_HEALTH_SECONDS,
        metavar="SECONDS",
        help=f"without an answer for so long it is unreachable (default: {_HEALTH_SECONDS:g})",
    )
    command(metrics, "the same in Prometheus' text format")
    watched = command(watch, "status again and again, until Ctrl-C")
    watched.add_argument("--interval", type=_seconds, default=2.0, metavar="SECONDS")
    command(ping, "whether the daemon answers, and how fast")
    command(cancel, "end a job, waiting or running").add_argument("job_id", metavar="JOB")
    command(describe, "the loaded models, as Wyoming's `info`")
    doctor.add_parser(commands, common)
    return parser


def main(argv: list[str] | None = None) -> int:
    streams.prepare()
    try:
        try:
            args = build_parser().parse_args(argv)
            return int(args.function(args))
        finally:
            streams.settle()
    except OutputLost as lost:
        if lost.code is not Exit.BROKEN_PIPE:
            complain(str(lost))
        return lost.code
    except AsrdError as error:
        complain(str(error))
        return exit_code(error)
    except KeyboardInterrupt:
        complain("interrupted")
        return Exit.INTERRUPTED
    except OSError as error:
        complain(str(error))
        return Exit.FAILED


if __name__ == "__main__":
    sys.exit(main())
