"""A section: what FFmpeg sees as one file. It gives the decoded frames of one audio track."""

from collections.abc import Collection, Iterator
from typing import Any

import av

from asrd.engine.audio import mp4, tracks
from asrd.engine.audio.containers import open_container, reason
from asrd.engine.audio.preadfile import PreadFile, Starved
from asrd.engine.audio.reader import RATE
from asrd.engine.audio.timeline import Timeline, whole_duration
from asrd.errors import BadAudio
from asrd.wire.fds import Closing
from asrd.wire.records import AudioFormat

_PLAIN_CODECS = frozenset({"pcm_s16le", "pcm_f32le"})
# Of any stream, from one packet to the next: a raw picture of 8K has 50 MB.
_BETWEEN_PACKETS = 1 << 26
# Of audio. Honest packets are an APE frame of 1.2 MB, or seconds of PCM of many channels; what is
# decoded from one takes several times as much, all at once. See also tracks.MAX_SAMPLES.
_PACKET_BYTES = 1 << 24
# FFmpeg's AVDISCARD_ALL.
_DISCARD_ALL = 48


class Section(Closing):
    """Iterate `frames` once. Close it.

    `track`: as in Options. `silent`: numbers of tracks that were tried in vain. `timeline`: that of
    the section before, if this one continues it. `before`: the length of the recording before it.

    Attributes:
        kind: FFmpeg's first name for the container.
        number, tracks: the number of the track, and how many audio tracks there are.
        warnings: notices about the choice of the track.
        packets: packets read of the track.
        heard: a packet was decoded.
        skipped: packets between decoded ones that can't be decoded.
        trailing: packets after the last decoded one.
        good_end: the offset in `file` at which the last decoded packet ends.
        failure: the last problem.
        gave_up: the reason if FFmpeg ended before the end of the file.

    Raises BadAudio, and BadRequest for a track that is not there.
    """

    def __init__(
        self,
        file: PreadFile,
        track: int | str | None,
        *,
        silent: Collection[int] = (),
        timeline: Timeline | None = None,
        before: float = 0.0,
    ) -> None:
        self.file = file
        self.packets = self.skipped = self.trailing = self.good_end = 0
        self.heard = False
        self.failure = "it holds no frame of audio"
        self.gave_up = ""
        self.fragment_by_fragment = False
        # The offset of the first packet.
        self._start: int | None = None
        self._container = self._open()
        try:
            self.kind: str = self._container.format.name.split(",")[0]
            streams = self._container.streams.audio
            self.tracks = len(streams)
            self.number, self.warnings = tracks.choose(streams, track, silent)
            self._stream = streams[self.number]
            self.timeline = timeline or Timeline(
                self._container, self._stream, self.kind, file, before
            )
            if self.kind == "mov":
                self._skip_others()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._container.close()

    def _open(self) -> Any:
        try:
            return open_container(self.file)
        except BadAudio:
            # FFmpeg reads the headers of all fragments first, and one of them may be damaged.
            if not mp4.fragments_begin(self.file):
                raise
            self.fragment_by_fragment = True
            return open_container(self.file, fragment_by_fragment=True)

    def _skip_others(self) -> None:
        """MP4 has tables, so FFmpeg need not even read the other streams. (In other containers it
        reads them without giving a packet, and `_BETWEEN_PACKETS` would limit them.)"""
        for stream in self._container.streams:
            # PyAV has it since version 17.
            if stream is not self._stream and hasattr(type(stream), "discard"):
                stream.discard = _DISCARD_ALL

    @property
    def total_seconds(self) -> float | None:
        """The seconds that the container claims, which may be a guess."""
        return self.timeline.claimed_end or whole_duration(self._container)

    @property
    def channels(self) -> int:
        channels: int = self._stream.codec_context.channels
        return channels

    @property
    def plain(self) -> bool:
        """It is a WAV of 16 kHz mono."""
        codec = self._stream.codec_context
        return (
            self.kind == "wav"
            and codec.name in _PLAIN_CODECS
            and (codec.sample_rate, codec.channels) == (RATE, 1)
        )

    def pcm(self) -> tuple[AudioFormat, PreadFile]:
        """Returns the samples of a `plain` section of which a packet was read."""
        audio = AudioFormat(self._stream.codec_context.name)
        start = self._start or 0
        frames = self._stream.duration or self.file.size
        length = min(frames * audio.frame_bytes, self.file.size - start)
        return audio, self.file.part(start, start + length - length % audio.frame_bytes)

    def frames(self) -> Iterator[tuple[Any, float]]:
        """Yields every frame that can be decoded, with the seconds of silence before it."""
        decoded = self._decoded()
        frame = next(decoded, None)
        while frame is not None:
            following = next(decoded, None)
            yield frame, self.timeline.gap_before(frame, following)
            frame = following

    def _decoded(self) -> Iterator[Any]:
        for packet in self._packets():
            if packet.size > _PACKET_BYTES:
                raise BadAudio(f"audio: a packet of {packet.size} bytes is larger than 16 MiB")
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                self.failure = reason(error)
                self.trailing += 1
                continue
            if frames:
                if self.heard:
                    # Before the first one they may be the rest of something.
                    self.skipped += self.trailing
                self.heard = True
                self.trailing = 0
                if packet.pos is not None:
                    self.good_end = packet.pos + packet.size
            yield from frames

    def _packets(self) -> Iterator[Any]:
        """Yields the packets of the track. Those of other streams are counted, too, because the
        bytes between any two packets are limited."""
        packets = self._container.demux()
        damaged = False
        while True:
            self.file.allowance = _BETWEEN_PACKETS
            try:
                packet = next(packets)
            except (StopIteration, IndexError):
                # PyAV raises IndexError at the end of a file in which streams began later.
                if self.fragment_by_fragment and mp4.next_fragment(self.file, self.good_end) >= 0:
                    self.gave_up = "a fragment is damaged"
                return
            except Starved as error:
                # A stream of MPEG-TS that began later gives no packets.
                if self.kind != "mpegts":
                    raise
                self.gave_up = str(error)
                return
            except av.FFmpegError as error:
                self.failure = reason(error)
                if damaged:
                    self.gave_up = self.failure
                    return
                # FFmpeg can go on behind one damaged place in the container; not if it fails twice.
                damaged = True
                packets = self._container.demux()
                continue
            damaged = False
            if packet.stream is self._stream:
                if self._start is None:
                    self._start = packet.pos
                self.packets += 1
                yield packet
