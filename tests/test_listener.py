"""The place of a listening socket in the file system."""

from pathlib import Path

import pytest

from asrd.errors import ConfigError
from asrd.listener import Place, bind


def test_a_socket_that_its_own_process_made_has_its_place(tmp_path: Path) -> None:
    path = tmp_path / "asrd.sock"
    with bind(str(path)) as listener:
        place = Place.of(listener)
        assert place is not None and not place.is_lost()
        path.unlink()
        assert place.is_lost()


def test_the_socket_of_a_dead_process_in_its_place_is_a_loss(tmp_path: Path) -> None:
    # systemd passes its own socket to each front, also after one had to listen anew.
    path = tmp_path / "asrd.sock"
    with bind(str(path)) as passed:
        path.unlink()
        bind(str(path)).close()
        place = Place.of(passed)
        assert place is not None and place.is_lost()
        with place.bind_again(0o600):
            assert not place.is_lost()


@pytest.mark.parametrize("kind", ["writable", "link"])
def test_a_directory_that_somebody_else_made_meanwhile_is_not_used(
    tmp_path: Path, kind: str
) -> None:
    directory = tmp_path / "place"
    directory.mkdir(mode=0o700)
    path = directory / "asrd.sock"
    with bind(str(path)) as listener:
        place = Place.of(listener)
        assert place is not None
        path.unlink()
        directory.rmdir()
        if kind == "link":
            (tmp_path / "other").mkdir(mode=0o700)
            directory.symlink_to(tmp_path / "other")
        else:
            directory.mkdir()
            directory.chmod(0o777)
        with pytest.raises(ConfigError, match="is no longer ours alone"):
            place.bind_again(0o600)
        assert not list(directory.iterdir())
