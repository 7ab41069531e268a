"""The limits of connections and descriptors, and what the unit has to know."""

from asrd.front import memory_bounds
from asrd.front.doors import MAIN
from asrd.front.front import Front
from asrd.settings import FrontSettings
from asrd.systemd import RESTART_SIGNAL
from tests.support.paths import ROOT

ALICE, BOB = 1000, 1001


def test_connections_are_limited_in_all_and_by_user() -> None:
    settings = FrontSettings(connections_max=5, connections_max_per_user=3)
    quota = Front(settings, memoryview(b"")).doors[MAIN].quota
    quota.add(ALICE, 3)
    assert quota.why_full(ALICE) == "the limit for user 1000 is reached (connections: 3)"
    quota.add(BOB, 2)
    assert quota.why_full(BOB) == "the limit for all clients is reached (connections: 5)"


def test_default_limits_leave_half_to_other_users() -> None:
    settings = FrontSettings()
    assert 2 * settings.connections_max_per_user <= settings.connections_max
    assert 2 * settings.status_connections_max_per_user <= settings.status_connections_max
    assert 2 * settings.wyoming_connections_max_per_address <= settings.wyoming_connections_max
    assert 2 * settings.spool_max_bytes_per_user <= settings.spool_max_bytes
    assert settings.max_payload_bytes <= settings.spool_max_bytes_per_user


def test_unit_allows_the_descriptors_of_the_default_settings() -> None:
    unit = (ROOT / "systemd" / "asrd.service").read_text()
    _, _, rest = unit.partition("\nLimitNOFILE=")
    assert memory_bounds.descriptors(FrontSettings()) + 2000 < int(rest.partition("\n")[0])


def test_unit_restarts_the_front_with_its_signal() -> None:
    unit = (ROOT / "systemd" / "asrd.service").read_text()
    for setting in ("RestartKillSignal", "SuccessExitStatus"):
        assert f"\n{setting}={RESTART_SIGNAL.name}\n" in unit
