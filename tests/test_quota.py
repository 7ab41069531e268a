"""A quota for all users and for each."""

import pytest

from asrd.quota import Quota


def test_quota_is_full_for_one_user_and_then_for_all() -> None:
    quota = Quota(5, 3, "connections")
    quota.add(1000, 3)
    assert quota.why_full(1000) == "the limit for user 1000 is reached (connections: 3)"
    assert quota.why_full("192.0.2.1", 2) is None
    assert quota.why_full("192.0.2.1", 3) == "the limit for all clients is reached (connections: 5)"
    quota.add("192.0.2.1", 2)
    quota.add(1000, -3)
    assert (quota.used, quota.why_full(1000)) == (2, None)
    assert (1000 in quota, "192.0.2.1" in quota) == (False, True)


def test_quota_within_another_counts_for_both() -> None:
    whole = Quota(5, 0, "bytes")
    part = Quota(3, 2, "bytes of strangers", within=whole)
    part.add(1000, 2)
    whole.add(1001, 2)
    assert whole.used == 4
    assert part.why_full(1001) is None
    assert part.why_full(1001, 2) == "the limit for all clients is reached (bytes of strangers: 3)"
    whole.add(1001, 1)
    assert part.why_full(1001) == "the limit for all clients is reached (bytes: 5)"
    part.add(1000, -2)
    assert (part.used, whole.used) == (0, 3)


@pytest.mark.parametrize(("limit", "full"), [(0, True), (1, False)])
def test_quota_without_a_limit_per_user(limit: int, full: bool) -> None:
    assert (Quota(limit, 0, "jobs").why_full(1) is not None) == full
