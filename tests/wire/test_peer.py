"""The jobs that a peer may see, and the key of its quotas."""

import pytest

from asrd.wire.peer import Peer, named


def user(uid: int) -> Peer:
    return Peer(7, uid, uid)


def nobody(address: str = "192.0.2.1") -> Peer:
    return Peer(None, None, None, address)


ALICE, BOB, ROOT = user(1000), user(1001), user(0)
ONE, OTHER, FAR = nobody(), nobody(), nobody("192.0.2.2")
SHARED, ALSO_SHARED = user(65534), user(65534)
ALL = (ALICE, BOB, ROOT, ONE, OTHER, FAR, SHARED, ALSO_SHARED)


@pytest.mark.parametrize("owner", ALL)
def test_root_sees_all_jobs(owner: Peer) -> None:
    assert ROOT.may_see(owner)


@pytest.mark.parametrize("peer", [ALICE, BOB, ONE, OTHER, FAR, SHARED, ALSO_SHARED])
def test_other_peers_see_only_their_own_jobs(peer: Peer) -> None:
    assert [owner for owner in ALL if peer.may_see(owner)] == [peer]


def test_user_sees_jobs_of_all_its_connections() -> None:
    assert user(1000).may_see(ALICE)


def test_quotas_count_by_user_or_address() -> None:
    assert (ALICE.user, ONE.user, FAR.user) == (1000, "address 192.0.2.1", "address 192.0.2.2")
    assert ONE.user == OTHER.user
    assert (named(ALICE.user), named(ONE.user)) == ("user 1000", "address 192.0.2.1")


def test_users_of_a_gateway_are_users_of_their_own() -> None:
    assert ALICE.on_behalf_of("bob") == "user bob of user 1000"
    assert len({named(ALICE.on_behalf_of("bob")), ONE.on_behalf_of("bob"), ALICE.user}) == 3


def test_log_names_user_and_process_or_address() -> None:
    assert ALICE.log_fields == {"ASRD_PEER_UID": 1000, "ASRD_PEER_PID": 7}
    assert ONE.log_fields == {"ASRD_PEER_ADDRESS": "192.0.2.1"}
