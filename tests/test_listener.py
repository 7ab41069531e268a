"""The place of a listening socket in the file system."""

from pathlib import Path

from asrd.front.listener import Place, bind


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
