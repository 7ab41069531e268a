"""`make docs`: writes the parts of the pages that repeat declarations, and the completions.

A generated part stands between two markers, the first of which names it:

    <!-- make docs: client_events.Ping -->          .\\" make docs: front
    ...                                             ...
    <!-- end -->                                    .\\" end

Names, values, defaults and codes come from the code. The last column of an event's table is the
field's help; without one, it is written by hand in the page, and kept by the name of its field.
"""

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from asrd.asrctl.cli import build_parser
from asrd.errors import Code, job_error_type
from asrd.exitcodes import EXIT_CODES
from asrd.settings import TABLES, WorkerSettings
from asrd.wire import client_events, options, records, worker_events
from tests.support.completions import completions
from tests.support.declared import accepts, default
from tests.support.paths import ROOT

# Returns the new text of a part, from the old one.
Writer = Callable[[str], str]


def pages() -> dict[Path, dict[str, Writer]]:
    """The generated parts of each page, by their names."""
    docs, man = ROOT / "docs", ROOT / "docs" / "man"
    return {
        docs / "settings.md": {
            **{name: _always(_settings(cls)) for name, cls in TABLES.items()},
            "options": _always(_settings(WorkerSettings, engine=True)),
            "vad_parameters": _always(_settings(options.VadParameters)),
        },
        docs / "protocol.md": {
            **{
                f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}": _fields(cls)
                for cls in _data()
            },
            "errors.Code": _always(_codes()),
        },
        man / "asrd.toml.5": {
            **{name: _always(_man_settings(cls)) for name, cls in TABLES.items()},
            "options": _always(_man_settings(WorkerSettings, engine=True)),
        },
        man / "asrd-protocol.7": {"errors.Code": _always(_man_codes())},
        man / "asrctl.1": {
            "synopsis": _always(_man_synopsis(build_parser())),
            "options": _always(_man_options(build_parser())),
            "exit codes": _always(_man_exit_codes()),
        },
    }


_PART = re.compile(
    r'^((?:<!-- |\.\\" )make docs: (?P<name>.+?)(?: -->)?\n)'
    r'(?P<old>.*?)^((?:<!-- |\.\\" )end(?: -->)?)$',
    re.MULTILINE | re.DOTALL,
)


def written(page: Path, parts: dict[str, Writer]) -> str:
    """The page with its generated parts renewed.

    Raises ValueError if the page lacks a part, or has one that the code doesn't know.
    """
    text = page.read_text()
    found = {match["name"] for match in _PART.finditer(text)}
    if missing := parts.keys() - found:
        raise ValueError(f"{page}: add the markers of {', '.join(sorted(missing))}")
    if unknown := found - parts.keys():
        raise ValueError(f"{page}: the code has no {', '.join(sorted(unknown))}")
    return _PART.sub(
        lambda match: f"{match[1]}{parts[match['name']](match['old'])}\n{match[4]}", text
    )


# --- Markdown -------------------------------------------------------------------------------------


def _always(text: str) -> Writer:
    return lambda old: text


def _table(*rows: Iterable[str]) -> str:
    head, *others = [f"| {' | '.join(row)} |".replace("|  |", "| |") for row in rows]
    return "\n".join([head, "|" + "---|" * (head.count("|") - 1), *others])


def _settings(cls: type, engine: bool = False) -> str:
    rows = [
        [*row, spec.metadata["help"]]
        for row, spec in _declared(cls)
        if _is_engines(cls, spec) == engine
    ]
    return _table(["key", "values", "default", ""], *rows)


def _is_engines(cls: type, spec: dataclasses.Field[Any]) -> bool:
    """True for the settings of a worker that are options of a request, too."""
    return cls is WorkerSettings and spec.name in options.EngineOptions.__dataclass_fields__


def _data() -> list[type]:
    """Every event, and every record inside them."""
    clients = (client_events.FROM_CLIENT, client_events.TO_CLIENT)
    workers = (worker_events.TO_WORKER, worker_events.FROM_WORKER)
    events = [cls for table in (*clients, *workers) for cls in table.values()]
    own = [
        cls
        for module in (options, records, worker_events)
        for cls in vars(module).values()
        if isinstance(cls, type) and cls.__module__ == module.__name__ and cls not in events
    ]
    # Every field of EngineOptions is one of Options, too.
    return [*events, *(cls for cls in own if cls is not options.EngineOptions)]


def _fields(cls: type) -> Writer:
    def write(old: str) -> str:
        cells = [line.strip("|").split("|") for line in old.splitlines() if line.startswith("| `")]
        meanings = {name.strip(): meaning.strip() for name, *_, meaning in cells}
        rows = [
            [*row, spec.metadata.get("help") or meanings.get(row[0], "")]
            for row, spec in _declared(cls)
        ]
        return _table(["field", "values", "default", ""], *rows) if rows else "No fields."

    return write


def _codes() -> str:
    rows = [[f"`{code}`", _meaning(code), "yes" if code.retryable else "no"] for code in Code]
    return _table(["code", "meaning", "retryable"], *rows)


def _meaning(code: Code) -> str:
    """The docstring of the code's exception. Raises ValueError if there is none."""
    cls = job_error_type(code)
    if not cls.__doc__:
        raise ValueError(f"asrd/errors.py: {cls.__name__} has no docstring for the pages")
    return " ".join(cls.__doc__.split())


def _declared(cls: type) -> list[tuple[list[str], dataclasses.Field[Any]]]:
    """Each field's name, values and default, and the field itself."""
    return [
        ([f"`{spec.name}`", accepts(spec.metadata["get"]), default(spec)], spec)
        for spec in dataclasses.fields(cls)
    ]


# --- manual pages ---------------------------------------------------------------------------------


def _roff(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace('"', '""')


def _man_settings(cls: type, engine: bool = False) -> str:
    return "\n".join(
        _man_setting(spec) for spec in dataclasses.fields(cls) if _is_engines(cls, spec) == engine
    ).replace("…", "...")


def _man_setting(spec: dataclasses.Field[Any]) -> str:
    default_ = "" if spec.default is None else f" = {_roff(json.dumps(spec.default))}"
    name = f'.BR {spec.name} "{default_}"' if default_ else f".B {spec.name}"
    return f".TP\n{name}\n{spec.metadata['help']}"


def _man_codes() -> str:
    return "\n".join(
        f".TP\n.B {_roff(code)}\n{_meaning(code)}" + " Retryable." * code.retryable for code in Code
    )


def _man_exit_codes() -> str:
    codes = re.findall(r"^  (\d+) +(.+)$", EXIT_CODES, re.MULTILINE)
    return "\n".join(f".TP\n.B {code}\n{text[0].upper()}{text[1:]}." for code, text in codes)


def _man_synopsis(parser: argparse.ArgumentParser) -> str:
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    lines = [".SY asrctl", ".OP \\-\\-version", ".OP \\-\\-socket PATH", ".I COMMAND ...", ".YS"]
    for name, command in commands.choices.items():
        # Options first; every command has these two.
        own = [a for a in command._actions if a.dest not in {"help", "socket"}]
        own.sort(key=lambda action: not action.option_strings)
        lines += [f'.SY "asrctl {name}"', *map(_man_argument, own), ".YS"]
    return "\n".join(lines)


def _man_options(parser: argparse.ArgumentParser) -> str:
    """The paragraphs of the options of faster-whisper."""
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    groups = commands.choices["transcribe"]._action_groups
    (found,) = (group for group in groups if group.title == "options of faster-whisper")
    return "\n".join(map(_man_option, found._group_actions)).replace("…", "...")


def _man_option(action: argparse.Action) -> str:
    names = [_roff(name) for name in action.option_strings]
    value = str(action.metavar or "|".join(action.choices or ()))
    if action.nargs == 0:
        head = ".BR " + ' ", " '.join(names)
    else:
        head = ".BI " + ' "\\fR,\\fP " '.join(names) + f' " {value}"'
    return f".TP\n{head}\n{str(action.help).replace('%%', '%')}"


def _man_argument(action: argparse.Action) -> str:
    """`.OP --format txt|json`, `.OP --[no-]vad-filter` or `.I FILE ...`."""
    value = str(action.metavar or "|".join(action.choices or ()))
    if not action.option_strings:
        return f".I {value}" + " ..." * (action.nargs in ("+", "*"))
    option = _roff(action.option_strings[0])
    if isinstance(action, argparse.BooleanOptionalAction):
        option = option.replace("\\-\\-", "\\-\\-[no\\-]", 1)
    return f".OP {option} {value if action.nargs != 0 else ''}".rstrip()


def main() -> None:
    try:
        for page, parts in pages().items():
            text = written(page, parts)
            if text != page.read_text():
                page.write_text(text)
                print(f"wrote {page.relative_to(ROOT)}")
        for file, text in completions().items():
            file.write_text(text)
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
