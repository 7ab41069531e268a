"""The `asrd` program: serve, run, demo, fetch-model."""

import argparse
import importlib
import os
import sys

from asrd import stdio
from asrd.errors import AsrdError, ConfigError
from asrd.version import __version__

# Each command's module gives add_arguments(parser) and a function of the command's own name, and
# is imported only if it is asked for: the front stays light.
_COMMANDS = {
    "serve": ("asrd.front.server", "serve", "the front daemon, as systemd starts it"),
    "run": (
        "asrd.standalone.run",
        "run",
        "front and workers without systemd, in the foreground",
    ),
    "demo": (
        "asrd.standalone.demonstration",
        "demo",
        "transcribe, crash the worker, and lose nothing",
    ),
    "fetch-model": ("asrd.engine.fetch_model", "fetch", "download a model into the local cache"),
}

EXIT_CONFIG = 78


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
    args = _parser(chosen).parse_args(argv)
    module, function, _ = _COMMANDS[args.command]
    try:
        return int(getattr(importlib.import_module(module), function)(args))
    except ConfigError as error:
        stdio.say(f"asrd: {error}")
        return EXIT_CONFIG
    except AsrdError as error:
        stdio.say(f"asrd: {error}")
        return 1
    except BrokenPipeError:
        # Nobody reads stdout (`| head -1`). The interpreter's last flush must not fail for it, too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
