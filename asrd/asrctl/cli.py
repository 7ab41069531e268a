"""asrctl: transcribes recordings, and shows the daemon's state."""

import argparse
import math
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from asrd import prometheus
from asrd.asrctl import program
from asrd.asrctl.arguments import add_arguments
from asrd.asrctl.asking import ask
from asrd.asrctl.doctor import doctor
from asrd.asrctl.progress import can_redraw
from asrd.asrctl.rolling import restart_workers
from asrd.asrctl.spelling import Unsupported, translated
from asrd.asrctl.streams import complain, mention, show
from asrd.asrctl.table import crash_page, health_line, job_table, page
from asrd.asrctl.transcribing import transcribe
from asrd.client.client import Client
from asrd.errors import AsrdError
from asrd.exitcodes import HEALTH, HEALTH_CODES, Exit
from asrd.safe_text import escape, safe_json
from asrd.settings import DEFAULT_SOCKET
from asrd.snapshot import read_snapshot
from asrd.version import __version__

T = TypeVar("T")

# Together with the start of this program, a stuck daemon is reported within a second.
_HEALTH_SECONDS = 0.5
_COMPLETION_USE = """\
The Debian package installs it for all three shells. Otherwise, for this user:
  asrctl completion bash > ~/.local/share/bash-completion/completions/asrctl
  asrctl completion zsh  > ~/.zfunc/_asrctl        # and in ~/.zshrc: fpath+=~/.zfunc
  asrctl completion fish > ~/.config/fish/completions/asrctl.fish
"""


def status(args: argparse.Namespace) -> int:
    data = _ask(args, lambda client: client.status(crashes=args.crashes, jobs=args.jobs))
    if args.json:
        show(safe_json(data, indent=2) + "\n")
    elif args.jobs:
        show("\n".join(job_table(read_snapshot(data).job_list)) + "\n")
    else:
        show((crash_page if args.crashes else page)(read_snapshot(data)))
    return Exit.OK


def health(args: argparse.Namespace) -> int:
    try:
        snapshot = read_snapshot(_ask(args, lambda client: client.status(timeout=args.timeout)))
    except (AsrdError, OSError) as error:
        mention(escape(f"unreachable: {error}") + "\n")
        return Exit.UNREACHABLE
    mention(health_line(snapshot) + "\n")
    return HEALTH.get(snapshot.state, HEALTH["unavailable"])


def metrics(args: argparse.Namespace) -> int:
    show(prometheus.metrics(read_snapshot(_ask(args, Client.status)), args.openmetrics))
    return Exit.OK


def watch(args: argparse.Namespace) -> int:
    """Runs until Ctrl-C, which is the way to end it and no failure."""
    on_terminal = can_redraw(sys.stdout)
    try:
        while True:
            try:
                snapshot = read_snapshot(_ask(args, Client.status))
                text = page(snapshot) if on_terminal else health_line(snapshot) + "\n"
            except AsrdError as error:
                text = escape(f"unreachable: {error}") + "\n"
            # Clears the whole terminal, so that nothing of the last page stays.
            before = "\x1b[H\x1b[2J" if on_terminal else f"{datetime.now():%H:%M:%S} "
            show(before + text)
            time.sleep(args.interval)
    except KeyboardInterrupt:
        return Exit.OK


def top(args: argparse.Namespace) -> int:
    # Only this command needs curses.
    from asrd.asrctl.top import run

    return run(args)


def ping(args: argparse.Namespace) -> int:
    path, seconds = _ask(args, lambda client: (client.socket, client.ping()))
    mention(escape(f"{path} answered in {seconds * 1000:.2f} ms") + "\n")
    return Exit.OK


def cancel(args: argparse.Namespace) -> int:
    with Client(args.socket) as client:
        count = client.cancel(args.job_id)
    if not count:
        complain(f"you have no job {args.job_id}")
        return Exit.FAILED
    mention(f"cancelled {count} job{'' if count == 1 else 's'}\n")
    return Exit.OK


def describe(args: argparse.Namespace) -> int:
    show(safe_json(_ask(args, Client.describe), indent=2) + "\n")
    return Exit.OK


def bench(args: argparse.Namespace) -> int:
    # Only this command needs anyio, which comes with the engine.
    from asrd.asrctl.bench import run

    return run(args)


def completion(args: argparse.Namespace) -> int:
    show((Path(__file__).parent / "completions" / f"asrctl.{args.shell}").read_text())
    return Exit.OK


def _ask(args: argparse.Namespace, question: Callable[[Client], T]) -> T:
    return ask(args.socket, question)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.1 <= seconds <= 86400:
        raise argparse.ArgumentTypeError("must be 0.1 to 86400 seconds")
    return seconds


def _clients(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError("must be 1 to 64")
    return int(text)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="asrctl", description="Speech to text by the asrd daemon, and the daemon's state."
    )
    parser.add_argument("--version", action="version", version=f"asrctl {__version__}")
    # Also accepted after the command, where most people write it.
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
            function.__name__.replace("_", "-"),
            parents=[common],
            help=text,
            description=text[0].upper() + text[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(function=function, parser=added)
        return added

    add_arguments(command(transcribe, "turn recordings into text"))
    shown = command(status, "queue, workers, counts and timings")
    shown.add_argument("--json", action="store_true", help="the snapshot as the daemon sends it")
    instead = shown.add_mutually_exclusive_group()
    instead.add_argument("--crashes", action="store_true", help="the last 20 deaths of workers")
    instead.add_argument("--jobs", action="store_true", help="your jobs; for root, all jobs")
    asked = command(health, "one line, and an exit code for monitoring")
    asked.epilog = HEALTH_CODES
    asked.add_argument(
        "--timeout",
        type=_seconds,
        default=_HEALTH_SECONDS,
        metavar="SECONDS",
        help=f"report unreachable without an answer in this time (default: {_HEALTH_SECONDS:g})",
    )
    measured = command(metrics, "the figures of status in Prometheus' text format")
    measured.add_argument(
        "--openmetrics",
        action="store_true",
        help="in OpenMetrics 1.0, which ends with # EOF",
    )
    for repeat, text in (
        (watch, "repeat status until Ctrl-C"),
        (top, "show workers and jobs on the whole terminal, and end jobs"),
    ):
        command(repeat, text).add_argument(
            "--interval", type=_seconds, default=2.0, metavar="SECONDS", help="default: 2"
        )
    command(ping, "check that the daemon answers, and how fast")
    cancelled = command(cancel, "end a job, waiting or running")
    cancelled.add_argument("job_id", metavar="JOB", help="its id, for example from `asrctl status`")
    command(describe, "the loaded models, as Wyoming's `info`")
    timed = command(bench, "measure how fast the daemon is, in about a minute")
    timed.add_argument("--model", metavar="NAME", help="a model that a worker has loaded")
    timed.add_argument(
        "--clients",
        type=_clients,
        metavar="N",
        help="clients at once in the second measurement (default: as many as workers, 2 at least)",
    )
    command(restart_workers, "restart the workers one after the other, so that the others serve")
    completed = command(completion, "print the completion of asrctl for a shell")
    completed.epilog = _COMPLETION_USE
    completed.add_argument("shell", choices=("bash", "zsh", "fish"), metavar="bash|zsh|fish")
    examined = command(doctor, "find errors in the set-up, and print the commands that fix them")
    examined.add_argument("--json", action="store_true", help="the findings as JSON")
    return parser


def main(argv: list[str] | None = None) -> int:
    def command() -> int:
        arguments = list(sys.argv[1:] if argv is None else argv)
        if "transcribe" in arguments:
            begin = arguments.index("transcribe") + 1
            try:
                arguments[begin:], notes = translated(arguments[begin:])
            except Unsupported as error:
                complain(str(error))
                return Exit.USAGE
            for note in notes:
                complain(note)
        args = build_parser().parse_args(arguments)
        return int(args.function(args))

    return program.run("asrctl", command)


if __name__ == "__main__":
    sys.exit(main())
