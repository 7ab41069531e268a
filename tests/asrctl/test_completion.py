"""The completions of the shells, in the shells."""

import re
import subprocess
from pathlib import Path

import pytest

from asrd.asrctl.cli import main
from tests.support.completions import DIRECTORY, SHELLS, options

# Calls the function that bash would call after a Tab at the end of the line.
BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
function=$(complete -p asrctl | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
"$function" asrctl "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
CASES = {
    ("tran",): {"transcribe"},
    ("status", "--js"): {"--json"},
    ("transcribe", "--output"): {"--output", "--output-dir"},
    ("transcribe", "--format", "s"): {"srt"},
    ("transcribe", "--language", "d"): {"da", "de"},
    ("transcribe", "talk"): {"talk.wav"},
    ("transcribe", "--output-dir", "o"): {"out"},
}
cases = pytest.mark.parametrize(("words", "expected"), CASES.items(), ids=lambda case: None)


def complete(argv: list[str], directory: Path) -> set[str]:
    (directory / "out").mkdir()
    (directory / "talk.wav").touch()
    (directory / "other").touch()
    done = subprocess.run(
        argv, cwd=directory, env={"PATH": "/usr/bin:/bin", "HOME": str(directory)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    # fish describes each one behind a tab.
    return {line.partition("\t")[0].rstrip("/") for line in done.stdout.splitlines()}


@cases
def test_bash_completes(words: tuple[str, ...], expected: set[str], tmp_path: Path) -> None:
    argv = ["bash", "--norc", "-c", BASH, "bash", str(DIRECTORY / "asrctl.bash"), "asrctl", *words]
    assert complete(argv, tmp_path) == expected


@pytest.mark.package
@cases
def test_fish_completes(words: tuple[str, ...], expected: set[str], tmp_path: Path) -> None:
    line = " ".join(["asrctl", *words])
    code = f'source {DIRECTORY / "asrctl.fish"}; complete --do-complete "{line}"'
    assert complete(["fish", "--no-config", "--command", code], tmp_path) == expected


@pytest.mark.package
def test_zsh_finds_the_completion(tmp_path: Path) -> None:
    (tmp_path / "_asrctl").symlink_to(DIRECTORY / "asrctl.zsh")
    code = f"fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u -D; "
    code += "autoload +X -Uz _asrctl && echo $_comps[asrctl]"
    assert complete(["zsh", "-f", "-c", code], tmp_path) == {"_asrctl"}


@pytest.mark.parametrize("shell", SHELLS)
def test_every_option_is_completed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    for command, option in options():
        assert re.search(rf"\b{command.replace('-', '[-_]')}\b", text), command
        name = option.lstrip("-") if shell == "fish" else option
        assert re.search(rf"(?<![\w-]){name}(?![\w-])", text), f"{option}: run `make docs`"
