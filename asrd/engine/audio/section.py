"""One file as FFmpeg sees it: the audio frames of one track, and where to go on behind them."""

from collections.abc import Iterator
from typing import Any

import av

from asrd.engine.audio import tracks
from asrd.engine.audio.containers import claimed_end, kind_of, open_container, whole_duration
from asrd.engine.audio.converter import said
from asrd.engine.audio.declared import boxes
from asrd.engine.audio.preadfile import PreadFile, Starved
from asrd.engine.audio.reader import RATE
from asrd.engine.audio.timeline import Timeline
from asrd.errors import BadAudio, BadRequest
from asrd.wire.fds import Closing
from asrd.wire.records import AudioFormat

_PLAIN_CODECS = frozenset({"pcm_s16le", "pcm_f32le"})
# Of any stream, from one packet to the next: a raw picture of 8K has 50 MB.
_BETWEEN_PACKETS = 1 << 26
# Of audio. Honest packets are an APE frame of 1.2 MB, or seconds of PCM of many channels; what is
# decoded from one takes several times as much, all at once. See also tracks.MAX_SAMPLES.
_PACKET_BYTES = 1 << 24
# How another file of the same kind begins, behind the place where FFmpeg gave up or saw the end. A
# WavPack file has this at each block.
_BEGINNINGS = {
    "aiff": b"FORM",
    "au": b".snd",
    "caf": b"caff",
    "flac": b"fLaC",
    "flv": b"FLV\x01",
    "matroska": b"\x1a\x45\xdf\xa3",
    "tta": b"TTA1",
    "voc": b"Creative Voice File\x1a",
    "w64": b"riff\x2e\x91\xcf\x11",
    "wav": b"RIFF",
    "wv": b"wvpk",
}
# A fragment of MP4 begins with its size, and this.
_FRAGMENT = b"moof"
# FFmpeg's AVDISCARD_ALL.
_DISCARD_ALL = 48
# Sections in one file, and those in a row without any audio. Each costs a millisecond or more.
_MOST = 1000
_MOST_EMPTY = 8


class Section(Closing):
    """Iterate `frames` once. Close it.

    Attributes: `packets` read of the track; `skipped`, those between good ones that can't be
    decoded; `trailing`, those behind the last good one; `heard`, whether there was a good one;
    `failure`, the last problem; `gave_up`, why it ended before the end of the file, if it did;
    `after_damage`, whether it goes on behind a damaged place of the one before.

    `after`: the section before it in the same file; `begin`: where this one begins; `timeline`: the
    one of `after`, if it goes on; `silent`: tracks that were tried in vain.
    """

    def __init__(
        self,
        file: PreadFile,
        track: int | str | None,
        begin: int = 0,
        after: "Section | None" = None,
        timeline: Timeline | None = None,
        silent: tuple[int, ...] = (),
    ) -> None:
        self.packets = self.skipped = self.trailing = 0
        self.failure = "it holds no frame of audio"
        self.gave_up = ""
        self.heard = False
        self.after_damage = after is not None and bool(timeline or after.gave_up)
        self._file = file
        self._track = track
        self._silent = silent
        self._count: int = after._count + 1 if after else 1
        # Sections in a row without a good packet, up to this one.
        self._empty: int = after._empty + 1 if after else 1
        # Where the fragments of an MP4 begin; 0 for any other file, None until somebody asks.
        self._head: int | None = after._head if after else None
        # Where the next file of raw FLAC begins; -1 for none, None until somebody asks.
        self._next_flac: int | None = None
        # Some fragment of an MP4 is damaged; FFmpeg takes it for the end.
        self._one_by_one = False
        # Where the first packet begins, and where the last good one ends.
        self._start: int | None = None
        self._begin = self._good_end = begin
        self._container = self._open()
        try:
            self._kind = kind_of(self._container)
            streams = self._container.streams.audio
            self._number, self.warnings = tracks.choose(streams, track, silent)
            self._stream = streams[self._number]
            if self._kind == "mov":
                self._skip_others()
            self.timeline = timeline or Timeline(self._container, self._stream, self._kind)
            self.claimed_end = self._claimed_end(after if timeline else None)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._container.close()

    def _open(self) -> Any:
        try:
            return open_container(self._file)
        except BadAudio:
            # FFmpeg reads the headers of all fragments first, and one of them may be damaged.
            if not self._fragments_begin():
                raise
            self._one_by_one = True
            return open_container(self._file, one_by_one=True)

    @property
    def total_seconds(self) -> float | None:
        """The container's word for the whole, which may be a guess."""
        return self.claimed_end or whole_duration(self._container)

    @property
    def channels(self) -> int:
        channels: int = self._stream.codec_context.channels
        return channels

    @property
    def file_bytes(self) -> int:
        return self._file.size

    @property
    def unread_bytes(self) -> int:
        return self._file.size - self._good_end

    @property
    def plain(self) -> bool:
        """It is a WAV of the very samples that are wanted."""
        codec = self._stream.codec_context
        return (
            self._kind == "wav"
            and codec.name in _PLAIN_CODECS
            and (codec.sample_rate, codec.channels) == (RATE, 1)
        )

    def pcm(self) -> tuple[AudioFormat, int, int]:
        """Format, start and end of the samples of a `plain` section, once a packet was read."""
        audio = AudioFormat(self._stream.codec_context.name)
        start = self._start or 0
        frames = self._stream.duration or self._file.size
        length = min(frames * audio.frame_bytes, self._file.size - start)
        return audio, start, start + length - length % audio.frame_bytes

    def frames(self) -> Iterator[tuple[Any, float]]:
        """Every frame that can be decoded, and the seconds of silence before it; what is damaged in
        between is skipped."""
        decoded = self._decoded()
        frame = next(decoded, None)
        while frame is not None:
            following = next(decoded, None)
            yield frame, self.timeline.gap_before(frame, following)
            frame = following

    def _decoded(self) -> Iterator[Any]:
        flac = self._kind == "flac"
        for packet in self._packets():
            if packet.size > _PACKET_BYTES:
                raise BadAudio(f"audio: a packet of {packet.size} bytes is larger than 16 MiB")
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                self.failure = said(error)
                if self._begins_anew(packet):
                    return
                self.trailing += 1
                continue
            if frames:
                if self.trailing or not self.heard:
                    self._count_damage()
                if (pos := packet.pos) is not None:
                    # A packet of raw FLAC goes on until the next one begins, whatever lies between.
                    self._good_end = pos + (1 if flac else packet.size)
            yield from frames

    def _skip_others(self) -> None:
        """MP4 has tables, so FFmpeg need not even read what lies between. (Others it would read
        without giving a packet, which must not go on for long: see _BETWEEN_PACKETS.)"""
        for stream in self._container.streams:
            # PyAV has it since version 17.
            if stream is not self._stream and hasattr(type(stream), "discard"):
                stream.discard = _DISCARD_ALL

    def _count_damage(self) -> None:
        if self.heard:
            self.skipped += self.trailing
        # Else what came before may be the rest of something.
        self.heard = True
        self._empty = self.trailing = 0

    def _begins_anew(self, packet: Any) -> bool:
        """Returns True if another file begins after the last good packet, within this one."""
        magic = _BEGINNINGS.get(self._kind)
        if magic is None or packet.pos is None or not self.heard:
            return False
        if self._kind == "flac":
            return self._flac_begins_anew(packet.pos + packet.size)
        between = packet.pos + packet.size - self._good_end
        return magic in self._file.at(self._good_end, min(between, _BETWEEN_PACKETS))

    def _flac_begins_anew(self, end: int) -> bool:
        """FFmpeg's parser of raw FLAC is several packets ahead, and so are the positions that it
        reports: the next file may begin before the last good packet."""
        if self._next_flac is None:
            self._next_flac = self._file.find(_BEGINNINGS["flac"], self._start or 0)
        if not 0 <= self._next_flac < end:
            return False
        self._good_end = self._next_flac
        return True

    def _packets(self) -> Iterator[Any]:
        """Packets of the track. Those of all streams are looked at, because the bytes between two
        of them are limited."""
        packets = self._container.demux()
        damaged = False
        while True:
            self._file.allowance = _BETWEEN_PACKETS
            try:
                packet = next(packets)
            except (StopIteration, IndexError):
                # The latter is PyAV's, at the end of a file in which streams began later.
                if self._one_by_one and self._file.find(_FRAGMENT, self._good_end) >= 0:
                    self.gave_up = "a fragment is damaged"
                return
            except Starved as error:
                # A stream that began later goes unseen.
                if self._kind != "mpegts":
                    raise
                self.gave_up = str(error)
                return
            except av.FFmpegError as error:
                self.failure = said(error)
                if damaged:
                    self.gave_up = self.failure
                    return
                # One damaged place in the container: go on behind it. Two at once: no way on.
                damaged = True
                packets = self._container.demux()
                continue
            damaged = False
            if packet.stream is self._stream:
                if self._start is None:
                    self._start = packet.pos
                self.packets += 1
                yield packet

    def following(self) -> "Section | None":
        """The next part of the file behind the last good packet, which FFmpeg does not see."""
        begin = max(self._good_end, self._begin)
        while self._count < _MOST and self._empty < _MOST_EMPTY:
            place = self._next_beginning(begin)
            if place is None:
                return None
            try:
                return self._resumed(place)
            except (BadAudio, BadRequest):
                self._empty += 1
                self._begin = begin = place + 8
        if self._count == _MOST and self._next_beginning(begin) is not None:
            self.gave_up = f"it has more than {_MOST} parts"
        return None

    def another_track(self) -> "Section | None":
        """The same file once more, if nothing of this track could be decoded and there are others
        that nobody has tried."""
        tried = (*self._silent, self._number)
        left = len(self._container.streams.audio) - len(tried)
        resumes = self._count > 1
        if self.heard or resumes or self._track is not None:
            return None
        if not left or len(tried) == _MOST_EMPTY:
            return None
        return Section(self._file.part(0, self._file.size), None, silent=tried)

    def _claimed_end(self, before: "Section | None") -> float | None:
        if before is not None:
            return before.claimed_end
        return claimed_end(self._container, self._stream, self._file, self.timeline.origin)

    def _next_beginning(self, start: int) -> int | None:
        if self._kind == "mpegts":
            # It begins anywhere; a short rest is the other streams'.
            many = 8 * (self._file.size - start) > self._file.size or self.trailing
            return start if 0 < start < self._file.size and many else None
        if self._kind == "mov":
            if self._head is None:
                self._head = self._fragments_begin()
            head = self._head
            # FFmpeg has seen what its boxes lead to, wherever their samples lie.
            end = 0 if self._one_by_one else self._boxes_end()
            start = max(start if self.gave_up else 0, head, end)
            place = self._file.find(_FRAGMENT, start) - 4 if head else -1
        else:
            magic = _BEGINNINGS.get(self._kind)
            place = self._file.find(magic, start) if magic else -1
        return place if place >= start else None

    def _resumed(self, place: int) -> "Section":
        if self._kind == "mov":
            # All offsets stay as they are: what lies between becomes a box to skip.
            head = self._head or 0
            size = place - head
            patch = size.to_bytes(4, "big") + b"free"
            if size >= 1 << 32:
                patch = b"\0\0\0\1free" + size.to_bytes(8, "big")
            file = self._file.patched(head, patch) if size >= len(patch) else self._file
            return Section(file, self._track, place + 8, self, self.timeline)
        timeline = self.timeline if self._kind == "wv" else None
        return Section(self._file.part(place, self._file.size), self._track, 8, self, timeline)

    def _boxes_end(self) -> int:
        """Where the boxes of an MP4 lead nowhere any more."""
        end = max(0, self._begin - 8)
        for _, begin, size in boxes(self._file, end):
            if begin + (size or 0) > self._file.size:
                break
            end = begin + (size or 0)
        return end

    def _fragments_begin(self) -> int:
        """Where the header of an MP4 in fragments ends; 0 for any other."""
        end = 0
        for name, begin, size in boxes(self._file):
            if name == b"moov":
                end = begin + (size or 0)
            elif name == b"moof":
                return end
        return 0
