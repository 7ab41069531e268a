"""A front that says mutated things to a real worker with the demo model."""

from asrd.demo import SAMPLES

_SETTINGS = "[worker]\ncpu_threads = 1\nbeam_size = 1\ncheck_model = true\n"
_MESSAGES = 24
# How long the worker may be waited for between two messages, so that some jobs are run.
_PAUSE_SECONDS = 0.2
_WORDS = SAMPLES / "en-1.wav"
_TEXT = "one yes"
