"""`asrd transcribe`: recordings in, text out, with a daemon that exists only for that."""

import argparse
import os
import sys
from functools import partial
from pathlib import Path

from asrd import stdio
from asrd.asrctl import arguments, program, transcribing
from asrd.asrctl.spelling import Unsupported, translated
from asrd.asrctl.streams import complain
from asrd.config import absolute, config_path, load_worker
from asrd.errors import ConfigError, LoadError
from asrd.exitcodes import EXIT_CODES, EXIT_CONFIG, Exit
from asrd.standalone import flags, private
from asrd.standalone.model_choice import best_model, ensure_model
from asrd.standalone.pool import worker_environment

# Options that asrctl leaves to the worker's settings.
_OWN = frozenset({"--device", "--compute-type", "--threads"})
_EPILOG = f"""\
{EXIT_CODES}In addition {EXIT_CONFIG}: the settings are wrong, or the model can't be loaded.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.set_defaults(parser=parser, socket=None)
    arguments.add_arguments(
        parser,
        "the model to load, a name or a directory; default: the settings', else the best one on "
        "this machine",
    )
    parser.epilog = _EPILOG
    flags.add_engine_arguments(parser)
    parser.add_argument("--config", metavar="FILE", help="the settings file (asrd.toml)")
    parser.add_argument("--yes", action="store_true", help="fetch a missing model without asking")
    parser.add_argument("--verbose", action="store_true", help="also show the daemon's log")


def in_own_spelling(argv: list[str]) -> list[str]:
    """Returns the arguments without Whisper's spelling. Ends the program for an option that is not
    supported."""
    begin = argv.index("transcribe") + 1
    try:
        arguments, notes = translated(argv[begin:], _OWN)
    except Unsupported as error:
        stdio.say(f"asrd: {error}")
        sys.exit(Exit.USAGE)
    for note in notes:
        stdio.say(f"asrd: {note}")
    return [*argv[:begin], *arguments]


def transcribe(args: argparse.Namespace) -> int:
    return program.run("asrd", partial(_transcribe, args))


def _transcribe(args: argparse.Namespace) -> int:
    targets = transcribing.prepare(args)
    if args.watch is None and not any(map(_may_be_read, targets)):
        # Each is reported before a daemon would be needed.
        return transcribing.transcribe_files(args, targets)
    private.prepare(args.verbose)
    try:
        config = Path(absolute(str(config_path(args.config))))
        model = _model(args, config)
        if not args.quiet and sys.stderr.isatty():
            complain(f"loading the model {model} …")
        environment = worker_environment(model, args.device, args.compute_type, args.threads)
        environment["ASRD_CONFIG"] = str(config)
        with private.in_background(environment, args.verbose) as args.socket:
            # The daemon has one model, whatever its name.
            args.model = None
            return transcribing.run(args, targets)
    except (ConfigError, LoadError) as error:
        complain(str(error))
        return EXIT_CONFIG


def _may_be_read(name: str) -> bool:
    return name == arguments.STDIN or (os.access(name, os.R_OK) and not Path(name).is_dir())


def _model(args: argparse.Namespace, config: Path) -> str:
    """Returns the model for the worker, which is then on this machine. Never the demo model by
    itself: it would make nonsense of a person's recording."""
    configured = flags.model(args.model) or load_worker(config, "0").model
    if configured:
        ensure_model(configured, args.yes)
        return configured
    best = best_model(args.yes)
    if not args.quiet:
        complain(f"using the model {best}; --model NAME takes another one")
    return best
