"""From a client's descriptor to blocks of 16 kHz mono float32 samples.

The path of a media file:

    open_recording     this file: a PreadFile around the descriptor; then Media, or Pcm
    Media              media.py: the recording, an AudioReader (reader.py: blocks, limit, warnings)
      layout()         layout.py (mp4.py for MP4): by its headers alone, where the files of a chain
                       begin, and whether bytes are missing
      Sections         sections.py: one section for each file of the chain, and for each place
                       where reading resumes after FFmpeg gave up
        Section        section.py: a container opened by FFmpeg (containers.py), one of its tracks
                       (tracks.py), its packets decoded to frames
        Timeline       timeline.py: the silence that belongs before each frame
        Losses         losses.py: warnings about what could not be read
      Converter        converter.py: frames to 16 kHz mono
        SampleChecks   samples.py: replaces broken samples, finds channels that cancel out

Pcm (pcm.py) is all of this for samples without a container.

The client keeps the descriptor. Its offset is shared, so nothing here moves it; the file may be
truncated at any time, so nothing here maps it; and its bytes are hostile. FFmpeg sees a read-only
object over pread(2), never a name, and none of its demuxers that open what a file names.
"""

from asrd.engine.audio.media import Media
from asrd.engine.audio.pcm import Pcm
from asrd.engine.audio.preadfile import PreadFile
from asrd.engine.audio.reader import AudioReader
from asrd.errors import BadRequest
from asrd.wire.records import AudioFormat


def open_recording(
    fd: int,
    audio: AudioFormat,
    max_seconds: float,
    *,
    track: int | str | None = None,
    require_complete: bool = False,
    channel: int | None = None,
) -> AudioReader:
    """Opens `fd`, which stays the caller's and must stay open until the recording is closed.

    `track` and `require_complete`: as in Options. `channel`: the only channel to read, from 0 to
    `AudioReader.channels`, exclusive; None for the mix of all.

    Raises BadAudio if `fd` is no readable regular file, or holds no audio as `audio` says;
    BadRequest for a track that is not there; TooLarge for PCM that is too long.
    """
    file = PreadFile(fd)
    if audio.encoding == "file":
        return Media(file, max_seconds, track, require_complete, channel)
    if track not in (None, 0):
        raise BadRequest(f"audio_track: PCM has only one track, number 0, not {track!r}")
    return Pcm(file, audio, max_seconds, channel)
