"""The `asrd` program: serve, run, transcribe, check, demo, bench, fetch-model, add-model."""

import argparse
import importlib
import sys

from asrd import stdio
from asrd.errors import AsrdError, ConfigError
from asrd.exitcodes import EXIT_CONFIG, EXIT_FAILED, EXIT_INTERRUPTED
from asrd.version import __version__

# Module, function and help text of each command. Only the chosen command's module is imported, so
# that the front stays light; each also defines add_arguments(parser).
_COMMANDS = {
    "serve": ("asrd.front.server", "serve", "the front daemon, as systemd starts it"),
    "run": ("asrd.standalone.run", "run", "front and workers without systemd, in the foreground"),
    "transcribe": (
        "asrd.standalone.transcription",
        "transcribe",
        "turn recordings into text, without a running daemon",
    ),
    "check": (
        "asrd.asrctl.restart_check",
        "check",
        "test settings, models and sockets before a restart",
    ),
    "demo": ("asrd.standalone.demonstration", "demo", "crash a worker, and lose no request"),
    "bench": ("asrd.standalone.bench", "bench", "find the fastest settings for this CPU"),
    "fetch-model": ("asrd.engine.fetch_model", "fetch", "download a model into the local cache"),
    "add-model": ("asrd.engine.add_model", "add", "install a model from a directory or archive"),
}


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="asrd", description="A speech-to-text daemon that survives its engine."
    )
    parser.add_argument("--version", action="version", version=f"asrd {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, _, text) in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == chosen:
            importlib.import_module(module).add_arguments(command)
    return parser


def main(argv: list[str] | None = None) -> int:
    stdio.open_missing()
    argv = sys.argv[1:] if argv is None else argv
    chosen = next((word for word in argv if word in _COMMANDS), None)
    if chosen == "transcribe":
        argv = importlib.import_module(_COMMANDS[chosen][0]).in_own_spelling(argv)
    args = _parser(chosen).parse_args(argv)
    module, function, _ = _COMMANDS[args.command]
    try:
        return int(getattr(importlib.import_module(module), function)(args))
    except AsrdError as error:
        stdio.say(f"asrd: {error}")
        return EXIT_CONFIG if isinstance(error, ConfigError) else EXIT_FAILED
    except BrokenPipeError:
        # Nobody reads stdout (`| head -1`).
        stdio.silence(sys.stdout)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
