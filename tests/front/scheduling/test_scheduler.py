"""Examples of the scheduler's rules, and its texts; test_scheduler_histories.py proves the rules.

Times are plain numbers, for the scheduler has no clock.
"""

import math

import pytest

from asrd.errors import Code
from asrd.front.scheduling.actions import Abandon, Accept, Failure, Finish, Refuse, Start, Wake
from asrd.front.scheduling.job import Needs
from asrd.front.scheduling.scheduler import Scheduler
from asrd.front.scheduling.workers import Skills, WorkerState
from asrd.wire.fields import Table
from tests.support.counting import calls_of
from tests.support.scheduling import job, kinds, refusal, scheduler, turning

CANCELLED = Failure(Code.CANCELLED, "the client disconnected")
NO_MEMORY = Failure(Code.OUT_OF_MEMORY, "no memory")
ENGLISH = Skills(frozenset({"en"}), translate=False)
MANY = Skills(frozenset({"en", "de"}))
GERMAN = Needs(language="de")


def mixed() -> Scheduler:
    """Worker 0 is English-only, worker 1 multilingual; both are ready."""
    it = scheduler("0", "1", queue_max=5)
    it.worker_ready("0", "tiny.en", 0.0, skills=ENGLISH)
    it.worker_ready("1", "base", 0.0, skills=MANY)
    return it


# --- rules 1 to 3: the queue ------------------------------------------------------------------


def test_job_is_started_accepted_and_finished() -> None:
    it, mine = scheduler("0"), job()
    assert it.submit(mine, 1.0) == [Start(mine, "0", 1), Accept(mine, 0)]
    assert list(it.running()) == [mine]
    assert not it.idle
    assert it.job_done("0", 1, "text", 2.0) == [Finish(mine, "text")]
    assert (mine.attempts, mine.worker, mine.started_at) == (1, "0", 1.0)
    assert it.idle


def test_rule_1_job_goes_to_first_free_worker() -> None:
    it, jobs = scheduler("0", "1", queue_max=5), [job(), job(), job()]
    assert [it.submit(one, 0.0)[0] for one in jobs] == [
        Start(jobs[0], "0", 1),
        Start(jobs[1], "1", 2),
        Accept(jobs[2], 0),
    ]
    assert it.job_done("1", 2, "text", 1.0) == [Finish(jobs[1], "text"), Start(jobs[2], "1", 3)]


def test_rule_3_full_queue_refuses_with_a_time_to_return() -> None:
    it, third = scheduler("0", queue_max=1), job()
    it.submit(job(), 0.0)
    it.submit(job(), 0.0)
    failure = Failure(Code.BUSY, "the queue is full (1 of 1 jobs wait)", retry_after_ms=1000)
    assert it.submit(third, 0.0) == [Refuse(third, failure)]


def test_rule_3_lost_job_returns_to_the_head_until_its_last_attempt() -> None:
    it, first, second = scheduler("0", queue_max=1), job(), job()
    it.submit(first, 0.0)
    it.submit(second, 0.0)
    assert it.worker_lost("0", "it died", 1.0) == []
    assert (list(it.queue), it.retried) == ([first, second], 1)
    assert it.worker_ready("0", "tiny", 2.0) == [Start(first, "0", 2)]
    text = "the worker died in each of 2 attempts; the last time: killed by SIGSEGV"
    failure = Failure(Code.WORKER_CRASHED, text)
    assert it.worker_lost("0", "killed by SIGSEGV", 3.0) == [Finish(first, failure)]


# --- rule 6: workers that can't serve -----------------------------------------------------------


def test_rule_6_no_job_waits_for_a_failed_worker() -> None:
    it, running, waiting, late = scheduler("0"), job(), job(), job()
    it.submit(running, 0.0)
    it.submit(waiting, 0.0)
    failure = Failure(Code.UNAVAILABLE, "no worker can serve: worker 0: no such model")
    ends = [Finish(running, failure), Finish(waiting, failure)]
    assert it.worker_failed("0", WorkerState.FAILED, "no such model", 1.0) == ends
    assert it.submit(late, 2.0) == [Refuse(late, failure)]
    it.worker_ready("0", "tiny", 3.0)
    assert it.workers["0"].reason is None


# --- rule 7: spare workers ----------------------------------------------------------------------


@pytest.mark.parametrize(("model", "skills"), [("large", MANY), ("tiny", MANY)])
def test_rule_7_spare_with_another_model_or_skills_works(model: str, skills: Skills) -> None:
    it, mine = scheduler("0", "spare", queue_max=5), job(needs=GERMAN)
    it.worker_ready("0", "tiny", 0.0, skills=ENGLISH)
    it.worker_ready("spare", model, 0.0, spare=True, skills=skills)
    assert it.submit(mine, 0.0)[0] == Start(mine, "spare", 1)


# --- rule 8: models that differ in what they can do -----------------------------------------------


@pytest.mark.parametrize(
    ("needs", "code", "text"),
    [
        (
            Needs(language="fr"),
            Code.BAD_REQUEST,
            "language: no worker's model knows 'fr' (they know de, en)",
        ),
        (
            Needs("tiny.en", "de"),
            Code.BAD_REQUEST,
            "language: no worker's model knows 'de' (they know en)",
        ),
        (
            Needs("tiny.en", translate=True),
            Code.BAD_REQUEST,
            "task: no worker's model can translate: English-only models can't",
        ),
        (
            Needs("tiny.en", multilingual=True),
            Code.BAD_REQUEST,
            "multilingual: no worker has a multilingual model",
        ),
        (
            Needs("large"),
            Code.MODEL_NOT_FOUND,
            "name: no worker has the model 'large'; there is: base, tiny.en",
        ),
    ],
)
def test_rule_8_refusal_names_the_field(needs: Needs, code: Code, text: str) -> None:
    assert refusal(mixed(), job(needs=needs)) == (code, text)


def test_rule_8_word_timestamps_need_alignment_heads() -> None:
    it, mine = mixed(), job(needs=Needs(word_timestamps=True))
    without = Skills(frozenset({"en", "de"}), word_timestamps=False)
    it.worker_ready("1", "base", 0.0, skills=without)
    assert it.submit(mine, 1.0)[0] == Start(mine, "0", 1)
    text = "word_timestamps: no worker's model has alignment_heads"
    refused = job(needs=Needs("base", word_timestamps=True))
    assert refusal(it, refused) == (Code.BAD_REQUEST, text)


def test_rule_8_task_speech_needs_a_worker_that_knows_it() -> None:
    it, mine = mixed(), job(needs=Needs(speech=True))
    old = Skills(frozenset({"en", "de"}), speech=False)
    it.worker_ready("1", "base", 0.0, skills=old)
    assert it.submit(mine, 1.0)[0] == Start(mine, "0", 1)
    text = "end_of_speech_ms, task: no worker can find speech: its asrd is too old for that"
    assert refusal(it, job(needs=Needs("base", speech=True))) == (Code.BAD_REQUEST, text)


def test_rule_8_speakers_and_text_are_for_different_workers() -> None:
    it = scheduler("0", "1", queue_max=5)
    it.worker_ready("0", "voices", 0.0, skills=Skills(frozenset(), speakers=True))
    nobody = "task: voices tells speakers apart and writes no text"
    assert refusal(it, job(needs=Needs("voices"))) == (Code.BAD_REQUEST, nobody)
    it.worker_ready("1", "base", 0.0, skills=Skills(frozenset({"en", "de"})))
    text, search = job(), job(needs=Needs(speakers=True))
    assert it.submit(text, 1.0)[0] == Start(text, "1", 1)
    assert it.submit(search, 1.0)[0] == Start(search, "0", 2)
    refused = job(needs=Needs("base", speakers=True))
    none = "task: speakers: no worker has a model that tells speakers apart"
    assert refusal(it, refused) == (Code.BAD_REQUEST, none)


def test_rule_8_model_is_found_by_the_name_of_its_directory() -> None:
    it = scheduler("0", queue_max=5)
    it.worker_ready("0", "/srv/models/Base/", 0.0)
    for name in ("/srv/models/Base/", "/srv/models/base", "base", "BASE/"):
        assert kinds(it.submit(job(needs=Needs(name)), 1.0))[-1] == "Accept"
    for name in ("models", "/other/base", "bas", ""):
        assert kinds(it.submit(job(needs=Needs(name)), 1.0)) == ["Refuse model-not-found"]


def test_rule_8_ambiguous_name_is_refused_unless_it_is_exact() -> None:
    it = scheduler("0", "1", "2", queue_max=9)
    it.worker_ready("0", "/a/base", 1.0)
    it.worker_ready("1", "/b/base", 1.0)
    text = "name: 'base' may be /a/base or /b/base: give the whole name"
    assert refusal(it, job(needs=Needs("base"))) == (Code.BAD_REQUEST, text)
    whole, exact, waits = (job(needs=Needs(name)) for name in ("/b/base", "base", "base"))
    assert it.submit(whole, 1.0)[0] == Start(whole, "1", 1)
    it.worker_ready("2", "base", 2.0)
    assert it.submit(exact, 2.0)[0] == Start(exact, "2", 2)
    assert kinds(it.submit(waits, 2.0)) == ["Accept"]


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("Systran/faster-whisper-base", ["base", "Base", "faster-whisper-base", "whisper-base"]),
        ("base", ["systran/faster-whisper-base", "faster-whisper-base"]),
        ("/srv/models/faster-whisper-base", ["base", "Systran/faster-whisper-base"]),
        ("large-v3-turbo", ["turbo", "mobiuslabsgmbh/faster-whisper-large-v3-turbo"]),
        ("/srv/turbo", ["large-v3-turbo"]),
        ("me/whisper-danish", ["whisper-danish", "ME/whisper-danish"]),
    ],
)
def test_rule_8_all_names_of_an_official_model_are_equal(model: str, names: list[str]) -> None:
    it = scheduler("0", queue_max=9)
    it.worker_ready("0", model, 0.0)
    for name in names:
        assert kinds(it.submit(job(needs=Needs(name)), 1.0))[-1] == "Accept", name
    for name in ("tiny", "base.en", "large", "other/base", "danish", "whisper-1"):
        assert kinds(it.submit(job(needs=Needs(name)), 1.0)) == ["Refuse model-not-found"], name


def test_rule_7_spare_may_have_another_name_of_the_same_model() -> None:
    it, jobs = scheduler("0", "1", queue_max=9), [job(), job()]
    it.worker_ready("0", "turbo", 0.0)
    it.worker_ready("1", "large-v3-turbo", 0.0, spare=True)
    assert [kinds(it.submit(each, 1.0))[0] for each in jobs] == ["Start", "Accept"]


def test_rule_8_two_names_of_one_model_are_not_ambiguous() -> None:
    it = scheduler("0", "1", queue_max=9)
    it.worker_ready("0", "turbo", 1.0)
    it.worker_ready("1", "large-v3-turbo", 1.0)
    for key, name in enumerate(("turbo", "turbo"), 1):
        assert isinstance(it.submit(job(needs=Needs(name)), 1.0)[0], Start), key


def test_rule_8_alias_stands_for_a_model_or_for_the_default_one() -> None:
    aliases = Table({"whisper-1": "base", "Any": "", "gone": "medium"})
    it = scheduler("0", "1", queue_max=9, model_aliases=aliases)
    it.worker_ready("1", "/srv/base", 1.0)
    mine, any_, exact = (job(needs=Needs(name)) for name in ("Whisper-1", "any", "whisper-1"))
    assert it.submit(mine, 1.0)[0] == Start(mine, "1", 1)
    assert it.submit(any_, 1.0)[0] == Start(any_, "0", 2)
    text = "name: no worker has the model 'gone'; there is: /srv/base, any, tiny, whisper-1"
    assert refusal(it, job(needs=Needs("gone"))) == (Code.MODEL_NOT_FOUND, text)
    # A model with exactly that name comes before the alias.
    it.worker_added("2", 2.0)
    it.worker_ready("2", "whisper-1", 2.0)
    assert it.submit(exact, 2.0)[0] == Start(exact, "2", 3)


# --- rule 8: jobs that name no model --------------------------------------------------------------


def test_rule_8_nameless_jobs_are_for_one_model_however_busy_its_worker_is() -> None:
    it = scheduler("0", "small", queue_max=9)
    it.worker_ready("small", "tiny.en", 0.0, skills=ENGLISH)
    it.worker_ready("0", "base", 0.0, skills=MANY)
    jobs = [job(), job(2, needs=Needs(language="en")), job(3, needs=GERMAN)]
    assert [kinds(it.submit(each, 1.0))[0] for each in jobs] == ["Start", "Accept", "Accept"]
    # A name finds the worker that is idle all the time.
    named = job(4, needs=Needs("tiny.en"))
    assert it.submit(named, 1.0)[0] == Start(named, "small", 2)
    it.job_done("small", 2, "text", 2.0)
    # Nobody waits for a model that can't be expected: another one does what it can.
    it.worker_failed("0", WorkerState.FAILED, "no such model", 3.0)
    assert [each.worker for each in jobs] == ["small", None, None]
    assert [each.ended for each in jobs] == [False, False, True]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [(("10", "9", "a"), "9"), (("b", "a"), "a"), (("0", "1", "2"), "1")],
)
def test_rule_8_nameless_job_goes_to_the_first_worker_that_is_no_spare(
    names: tuple[str, ...], chosen: str
) -> None:
    it, mine = scheduler(*names), job()
    for name in names:
        it.worker_ready(name, f"model-{name}", 0.0, spare=name == "0")
    assert it.submit(mine, 1.0)[0] == Start(mine, chosen, 1)


def test_rule_8_default_model_is_for_all_jobs_that_it_can_do() -> None:
    it = scheduler(
        "0", "1", queue_max=9, default_model="Fast", model_aliases=Table({"fast": "tiny.en"})
    )
    it.worker_ready("0", "base", 0.0, skills=MANY)
    it.worker_ready("1", "/srv/tiny.en", 0.0, skills=ENGLISH)
    plain, german, waits = job(), job(needs=GERMAN), job()
    assert it.submit(plain, 1.0)[0] == Start(plain, "1", 1)
    assert it.submit(german, 1.0)[0] == Start(german, "0", 2)
    assert kinds(it.submit(waits, 1.0)) == ["Accept"]
    # Its worker is broken: no other model takes its place.
    text = "no worker can serve: worker 1: no such model"
    it.worker_failed("1", WorkerState.FAILED, "no such model", 2.0)
    assert plain.ended and waits.ended
    assert refusal(it, job()) == (Code.UNAVAILABLE, text)


def test_rule_8_default_model_that_no_worker_has_is_named_with_its_setting() -> None:
    it = scheduler("0", queue_max=9, default_model="bse")
    text = "name: no worker has the model 'bse' (default_model in asrd.toml); there is: tiny"
    assert refusal(it, job()) == (Code.MODEL_NOT_FOUND, text)
    it.worker_ready("0", "/a/bse", 1.0)
    it.worker_added("1", 1.0)
    it.worker_ready("1", "/b/bse", 1.0)
    text = "name: 'bse' (default_model in asrd.toml) may be /a/bse or /b/bse: give the whole name"
    assert refusal(it, job()) == (Code.BAD_REQUEST, text)


def test_rule_8_begun_job_stays_with_its_model() -> None:
    it, mine = scheduler("0", "1", queue_max=9), job()
    it.worker_ready("0", "base", 0.0)
    mine.model = "tiny"
    assert it.submit(mine, 1.0)[0] == Start(mine, "1", 1)


@pytest.mark.parametrize(("kept", "end"), [(0.0, "model-not-found"), (30.0, "unavailable")])
def test_rule_8_model_that_a_job_was_begun_with_may_come_back(kept: float, end: str) -> None:
    it, mine = scheduler("0", "1", queue_max=9, default_model="base"), job(seconds=60.0)
    it.worker_ready("0", "tiny", 0.0)
    it.worker_ready("1", "base", 0.0)
    it.submit(mine, 1.0)
    it.job_moved("1", mine.key, kept)
    assert kinds(it.worker_removed("1", 2.0)) == [f"Finish {end}"]


def test_worker_that_never_loaded_may_have_any_model() -> None:
    it = scheduler()
    assert refusal(it, job()) == (Code.UNAVAILABLE, "no worker is configured")
    it.worker_added("0", 0.0)
    assert kinds(it.submit(job(needs=Needs("large")), 0.0)) == ["Accept"]
    assert kinds(it.worker_ready("0", "tiny", 1.0)) == ["Finish model-not-found"]


# --- deadlines ----------------------------------------------------------------------------------


def test_job_that_waits_too_long_ends_in_phase_queue() -> None:
    it, mine = scheduler("0", max_wait_seconds=30.0), job()
    it.submit(job(), 0.0)
    it.submit(mine, 0.0)
    assert it.next_deadline() == 30.0
    assert it.tick(29.9) == []
    text = "the job waited 30.0 s, longer than allowed"
    failure = Failure(Code.DEADLINE_EXCEEDED, text, phase="queue")
    assert it.tick(30.0) == [Finish(mine, failure)]
    it.job_done("0", 1, "text", 31.0)
    assert it.next_deadline() == math.inf


def test_job_that_runs_too_long_ends_in_phase_run_and_is_abandoned() -> None:
    it, mine = scheduler("0", max_run_seconds=60.0), job()
    it.submit(mine, 5.0)
    failure = Failure(
        Code.DEADLINE_EXCEEDED, "the job ran 60.0 s, longer than allowed", phase="run"
    )
    # Any event ends what is overdue.
    assert it.worker_added("1", 65.0) == [Abandon("0", 1), Finish(mine, failure)]


# --- the end of a worker ------------------------------------------------------------------------


def test_retired_worker_ends_its_job_and_gets_no_other() -> None:
    it, running, waiting = scheduler("0", queue_max=5), job(), job()
    it.submit(running, 0.0)
    it.submit(waiting, 0.0)
    text = "no worker can serve: worker 0: its socket is gone"
    assert it.worker_retired("0", 1.0) == [Finish(waiting, Failure(Code.UNAVAILABLE, text))]
    assert kinds(it.submit(job(), 1.0)) == ["Refuse unavailable"]
    assert it.job_done("0", 1, "text", 2.0) == [Finish(running, "text")]
    # Its socket is there again, then it is gone for good.
    it.worker_added("0", 3.0)
    assert kinds(it.submit(job(), 3.0)) == ["Start", "Accept"]
    assert kinds(it.worker_removed("0", 4.0)) == ["Finish unavailable"]
    assert not it.workers


def test_leaving_worker_hands_its_jobs_back_in_their_order() -> None:
    it, jobs, waiting = turning("0", slots=3), [job(1), job(2, seconds=100.0), job(3)], job(4)
    for each in (*jobs, waiting):
        it.submit(each, 0.0)
    it.worker_left("0", False, 1.0)
    assert (list(it.queue), it.retried) == ([*jobs, waiting], 0)
    assert [each.deaths for each in jobs] == [0, 0, 0]


def test_one_sleeper_that_suits_is_woken_for_each_waiting_job() -> None:
    it, mine = scheduler("0", "1", "2", queue_max=5), job(needs=Needs("tiny"))
    it.worker_ready("0", "large", 0.0)
    for name in "012":
        it.worker_left(name, True, 0.0)
    assert it.submit(mine, 1.0) == [Wake("1"), Accept(mine, 0)]
    assert it.tick(2.0) == []
    assert it.worker_ready("1", "tiny", 2.0) == [Start(mine, "1", 1)]


def test_refused_job_wakes_a_sleeper_where_none_may_wait() -> None:
    it = scheduler("0", queue_max=0)
    it.worker_left("0", True, 0.0)
    assert kinds(it.submit(job(), 1.0)) == ["Refuse busy", "Wake"]
    it.worker_ready("0", "tiny", 2.0)
    assert kinds(it.submit(job(), 3.0)) == ["Start", "Accept"]


# --- draining -----------------------------------------------------------------------------------


def test_draining_scheduler_accepts_nothing_and_ends_the_accepted() -> None:
    it, late = scheduler("0"), job()
    it.submit(job(), 0.0)
    it.drain(0.0)
    failure = Failure(Code.SHUTTING_DOWN, "asrd is shutting down", retry_after_ms=1000)
    assert it.submit(late, 1.0) == [Refuse(late, failure)]
    assert not it.idle
    it.job_done("0", 1, "text", 2.0)
    assert it.idle


def test_draining_job_waits_no_longer_than_max_wait_seconds() -> None:
    it = scheduler("0", queue_max=5, max_wait_seconds=10.0)
    it.submit(job(), 0.0)
    it.submit(job(), 4.0)
    it.submit(job(timeout=5000.0), 4.0)
    it.drain(6.0)
    assert it.next_deadline() == 14.0
    assert kinds(it.tick(14.0)) == ["Finish deadline-exceeded"]
    assert it.next_deadline() == 16.0
    it.worker_lost("0", "it died", 15.0)
    assert kinds(it.tick(16.0)) == ["Finish deadline-exceeded"]
    assert kinds(it.tick(25.0)) == ["Finish deadline-exceeded"]
    assert it.idle


def test_job_given_back_while_draining_waits_no_longer_than_max_wait_seconds() -> None:
    it = scheduler("0", max_wait_seconds=10.0)
    it.submit(job(timeout=5000.0), 0.0)
    it.drain(60.0)
    assert it.worker_left("0", False, 61.0) == []
    assert it.next_deadline() == 71.0


# --- costs --------------------------------------------------------------------------------------


def test_retry_after_follows_recent_runs_and_ready_workers() -> None:
    it, refused = scheduler("0", queue_max=0), job()
    for number in range(1, 40):
        it.submit(job(), 10.0 * number)
        it.job_done("0", number, "text", 10.0 * number + 4.0, 4.0, 3.0)
    assert it.admission.retry_after_ms(refused, 500.0) == pytest.approx(4000, rel=0.01)
    it.worker_lost("0", "it died", 501.0)
    assert it.admission.retry_after_ms(job(uid=2), 501.0) == 1000


def test_idle_worker_with_another_model_shortens_no_delay() -> None:
    it, tiny = scheduler("0", "1", queue_max=0), Needs("tiny")
    it.worker_ready("1", "large", 0.0)
    it.submit(job(needs=tiny), 0.0)
    refused = [it.submit(job(needs=tiny), 0.0)[0] for _ in range(4)]
    delays = [one.failure.retry_after_ms for one in refused if isinstance(one, Refuse)]
    assert delays == [1000, 1333, 1667, 2000]


def test_cost_of_a_job_does_not_depend_on_the_queue() -> None:
    def cost(length: int) -> int:
        it = scheduler("0", "1", queue_max=100_000)
        # A free worker that suits none of the waiting jobs.
        it.worker_ready("1", "large", 0.0)
        for number in range(length):
            it.submit(job(uid=number % 7, needs=Needs("tiny")), 0.0)
        return calls_of(lambda: it.job_done("0", 1, "text", 1.0))

    assert cost(1000) <= cost(50)
