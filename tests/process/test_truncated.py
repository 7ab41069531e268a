"""A client that shortens its audio while the job waits in the queue."""

import os
from pathlib import Path

from asrd.errors import Code
from tests.support.daemons import Daemon
from tests.support.raw import LONG, PCM, SHORT, memfd
from tests.support.speech import pcm_s16le, spoken


def test_file_truncated_in_the_queue_is_bad_audio(tmp_path: Path) -> None:
    pcm = pcm_s16le(spoken("en")[0].path)
    config = "[front]\nqueue_max = 8\n[worker]\ncpu_threads = 1\n"
    with Daemon(tmp_path, config=config) as daemon, daemon.connect() as client:
        daemon.wait_until_ready()
        client.ask_file("long", LONG)
        with memfd(pcm) as shared:
            data = {"job_id": "cut", "audio": PCM, "language": "en"}
            client.send("transcribe", data, fds=(shared.fileno(),))
            # In order of arrival: this one's answer says that the one before it was accepted.
            client.send("ping")
            for kind in ("accepted", "accepted", "pong"):
                client.expect(kind)
            os.ftruncate(shared.fileno(), len(pcm) // 4 * 2)
            error = client.answer("cut").data
        assert error["code"] == Code.BAD_AUDIO, error
        assert "truncated" in error["text"]
        client.transcript("long")
        client.ask_file("next", SHORT)
        client.transcript("next")
