"""A fake daemon for live text, with a behaviour for each kind of event of a stream."""

from pathlib import Path
from typing import Any

from tests.support.fake_daemon import Behaviour, FakeDaemon, Peer, transcript


def ignore(peer: Peer, data: dict[str, Any]) -> None:
    pass


class LiveDaemon(FakeDaemon):
    """Answers an audio-start, the first chunk and the audio-stop of its last `transcribe`."""

    def __init__(
        self, path: Path, *, start: Behaviour, chunk: Behaviour = ignore, stop: Behaviour = ignore
    ) -> None:
        def of_job(behave: Behaviour) -> Behaviour:
            return lambda peer, _: behave(peer, self.jobs[-1].data)

        others = {"audio-start": start, "audio-chunk": chunk, "audio-stop": stop}
        others = {kind: of_job(behave) for kind, behave in others.items()}
        super().__init__(path, [ignore], others=others)


def begin(peer: Peer, request: dict[str, Any]) -> None:
    peer.send("transcript-start", job_id=request["job_id"])


def hear(peer: Peer, request: dict[str, Any]) -> None:
    job_id = request["job_id"]
    peer.send("transcript-chunk", text="", job_id=job_id, pending="hel")
    peer.send("transcript-chunk", text="hello", job_id=job_id, start=0.5, end=1)


def finish(peer: Peer, request: dict[str, Any]) -> None:
    job_id = request["job_id"]
    peer.send("accepted", job_id=job_id, queue_depth=0)
    peer.send("transcript-chunk", text=" world", job_id=job_id, start=1, end=2)
    peer.send("transcript", **transcript(request, ["hello", "world"]))
    peer.send("transcript-stop", job_id=job_id)
