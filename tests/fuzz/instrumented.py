"""A libFuzzer process: `python -m tests.fuzz.instrumented TARGET [libFuzzer's arguments]`."""

import sys

import atheris

with atheris.instrument_imports(include=["asrd", "tomllib"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    target, *arguments = sys.argv[1:]
    # libFuzzer starts itself again for a merge: its name must be a command.
    atheris.Setup(
        [f"{sys.executable} -m tests.fuzz.instrumented {target}", *arguments], TARGETS[target]
    )
    atheris.Fuzz()
