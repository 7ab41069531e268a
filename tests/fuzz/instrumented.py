"""Under libFuzzer: `python -m tests.fuzz.instrumented TARGET [libFuzzer's arguments]`."""

import sys

import atheris

with atheris.instrument_imports(include=["asrd", "tomllib"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()
