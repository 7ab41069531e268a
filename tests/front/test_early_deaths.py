"""Processes that die again and again before they are ready."""

from asrd.front.early_deaths import EarlyDeaths

NOTICED = "its connection ended without notice"
SENTENCE = "its process dies again and again while it loads its model: "


def test_worker_is_given_up_after_some_deaths_and_some_time() -> None:
    deaths = EarlyDeaths()
    assert [deaths.add(NOTICED, at) for at in (100.0, 101.0, 102.0, 109.9)] == [None] * 4
    assert deaths.add(NOTICED, 110.0) == SENTENCE + NOTICED
    deaths.explain("out of memory (killed by SIGKILL)")
    deaths.explain(None)
    assert deaths.add(NOTICED, 111.0) == SENTENCE + "out of memory (killed by SIGKILL)"


def test_two_deaths_are_an_accident_however_long_ago() -> None:
    deaths = EarlyDeaths()
    assert [deaths.add(NOTICED, at) for at in (100.0, 200.0)] == [None] * 2


def test_process_that_is_ready_ends_the_row() -> None:
    deaths = EarlyDeaths()
    for at in (100.0, 101.0, 109.0):
        deaths.add(NOTICED, at)
    deaths.explain("exited with 1")
    deaths.end()
    assert [deaths.add(NOTICED, at) for at in (120.0, 121.0)] == [None] * 2
    assert deaths.add(NOTICED, 130.0) == SENTENCE + NOTICED
