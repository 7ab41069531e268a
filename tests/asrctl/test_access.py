"""The rights of the daemon's users, by the files' modes."""

import os
from pathlib import Path

import pytest

from asrd.asrctl.access import Reader, parts

GROUP = frozenset({os.getgid()})


@pytest.mark.parametrize(
    ("mode", "owner", "group", "other"),
    [
        (0o400, True, False, False),
        (0o040, False, True, False),
        (0o004, False, False, True),
        (0o640, True, True, False),
    ],
)
def test_first_of_user_group_and_others_that_fits_decides(
    tmp_path: Path, mode: int, owner: bool, group: bool, other: bool
) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.touch()
    file.chmod(mode)
    folder.mkdir()
    # A directory must be entered, too.
    folder.chmod(mode | mode >> 2)
    found = [
        [reader.may_read(path) for path in (file, folder)]
        for reader in (Reader("", os.getuid(), GROUP), Reader("", None, GROUP), Reader(""))
    ]
    assert found == [[owner] * 2, [group] * 2, [other] * 2]
    folder.chmod(mode)
    assert not any(Reader("", os.getuid(), GROUP).closed([folder]) == [] for _ in [0])
    folder.chmod(0o755)


def test_parts_are_without_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").touch()
    (tmp_path / "link").symlink_to("real")
    *_, folder, file = parts(tmp_path / "link" / "file")
    assert folder == Path(os.path.realpath(tmp_path)) / "real"
    assert file == folder / "file"
