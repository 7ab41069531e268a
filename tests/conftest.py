"""What every test gets: nothing of it may stay behind, and the same examples each time in CI."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.leaks import no_leaks

# No deadline: the machines are shared, and a slow example is no bug. No database: a failure must
# not depend on what an earlier run left behind.
settings.register_profile(
    "dev", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", parent=settings.get_profile("dev"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fails a test that leaves a descriptor, a thread or a child process."""
    with no_leaks():
        yield
