"""A descriptor's bytes as 16 kHz mono float32, block by block.

The client keeps the descriptor: its offset is shared (so nothing here seeks it), it may be
truncated at any time (so nothing here maps it), and its bytes are hostile. PyAV sees a read-only
object over `pread`, never a name, and none of the demuxers that open what a file tells them to.

    preadfile -> containers (open), tracks (choose) -> media (decode) -> converter -> recording
              -> pcm ---------------------------------------------------------------^
"""

from asrd.engine.audio.media import Media
from asrd.engine.audio.pcm import Pcm
from asrd.engine.audio.preadfile import PreadFile
from asrd.engine.audio.reader import BLOCK_SECONDS, RATE, AudioReader, Samples
from asrd.errors import BadRequest
from asrd.wire.records import AudioFormat

__all__ = ["BLOCK_SECONDS", "RATE", "AudioReader", "Samples", "open_recording"]


def open_recording(
    fd: int,
    audio: AudioFormat,
    max_seconds: float,
    *,
    track: int | str | None = None,
    require_complete: bool = False,
    channel: int | None = None,
) -> AudioReader:
    """Start to read `fd`, which stays the caller's and must stay open until `close`.

    `track` and `require_complete` as in Options. `channel` is the only channel that is read, from
    0 to `Recording.channels`, exclusive; None for the mix of all.

    Raises BadAudio for what is no readable regular file, or holds no audio as `audio` says;
    BadRequest for a track that is not there; TooLarge if it is PCM and too long.
    """
    file = PreadFile(fd)
    if audio.encoding == "file":
        return Media(file, max_seconds, track, require_complete, channel)
    if track not in (None, 0):
        raise BadRequest(f"audio_track: PCM has only one track, number 0, not {track!r}")
    return Pcm(file, audio, max_seconds, channel)
