# SPDX-License-Identifier: Apache-2.0
"""When the pictures of a file are shown: what its header, packets and pictures say, made sense of.

Stamps are integers in a stream's time base. A packet has a decoding stamp (dts) and a presentation
stamp (pts); they differ where pictures are stored in another order than they are shown in.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import av
from av import stream as av_stream

from object_detection_ext.data import time_line

# As many packets tell where the video begins: more than any codec stores before the first picture.
HEAD_PACKETS = 32
# A header's length, in seconds, is not exact.
LENGTH_TOLERANCE = 0.5
# How far before its end, in seconds, a file is looked into.
_TAIL_SECONDS = 1.0


def video_stream(container) -> Any | None:
    """Returns the first video stream that is none of a song's or film's cover pictures, or None."""
    cover = av_stream.Disposition.attached_pic
    return next((s for s in container.streams.video if not s.disposition & cover), None)


def frame_rate(container, stream) -> float | None:
    """Returns the average frames per second, None if unknown."""
    rate = stream.average_rate
    if container.format.flags & av.format.Flags.no_timestamps.value:
        # For want of timestamps FFmpeg says 25 here, whatever the pictures themselves say.
        rate = stream.guessed_rate
    return float(rate) if rate else None


def shown_for(period: float, duration: float, interval: float) -> float:
    """Returns for how many seconds the last picture is shown.

    As long as the file says, as the one before it was, or as pictures are on average: the longest
    of these, since headers often cut it short.

    Args:
      period: between two pictures on average.
      duration: of the picture as the file says; 0 if it does not.
      interval: since the picture before it; more than a second is a gap and does not count.
    """
    return max(period, duration, interval if interval < 1.0 else 0.0)


def may_start_over(container) -> bool:
    """Whether files of this format are put together by writing one after the other.

    Then timestamps may start over anywhere, and nothing at their ends says how long they are.
    """
    return bool(container.format.flags & av.format.Flags.ts_discont.value)


def sound_lead(container, stream) -> float:
    """Returns for how many seconds the first sound is played before the first picture."""
    starts = [
        float(other.start_time * other.time_base)
        for other in container.streams.audio
        if other.start_time is not None and other.time_base
    ]
    if not starts or stream.start_time is None:
        return 0.0
    return max(0.0, float(stream.start_time * stream.time_base) - min(starts))


# --- Header ---------------------------------------------------------------------------------------


def header_length(container, stream) -> float | None:
    """Returns for how many seconds the video should last, as its header says; None if unknown.

    The header of a Matroska file has the length of its longest track, which may be the sound. Then
    the track's own tag counts, and without one its last packets. Where timestamps may start over,
    what FFmpeg makes of the last ones is not the length.
    """
    if may_start_over(container):
        return None
    if stream.duration is not None and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration is None:
        return None
    start = float((stream.start_time or 0) * stream.time_base)
    whole = container.duration / av.time_base
    tagged = _tagged_end(stream.metadata)
    if tagged is not None:
        return min(tagged, whole) - start
    if sum(other.type in ("video", "audio") for other in container.streams) > 1:
        ends = _last_seconds(container, whole)
        # Where no track comes near the header's end, the file is cut off.
        if stream.index in ends and max(ends.values()) > whole - LENGTH_TOLERANCE:
            return ends[stream.index] - start
    return whole - start


def _tagged_end(tags) -> float | None:
    """Reads the tag `DURATION`, as "00:00:02.080000000", which may have a language behind it."""
    for name in sorted(tags):
        parts = tags[name].split(":")
        if name.partition("-")[0] == "DURATION" and len(parts) == 3:
            try:
                hours, minutes, seconds = map(float, parts)
            except ValueError:
                continue
            return 3600 * hours + 60 * minutes + seconds
    return None


def _last_seconds(container, length: float) -> dict[int, float]:
    """Returns when the last packet of each track ends, by the track's index, in seconds."""
    ends: dict[int, float] = {}
    try:
        container.seek(int(max(0.0, length - _TAIL_SECONDS) * av.time_base))
        for packet in container.demux():
            if packet.pts is not None and packet.size:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                ends[packet.stream.index] = max(end, ends.get(packet.stream.index, 0.0))
    except (av.FFmpegError, OSError):
        pass  # what was read until here tells
    return ends


# --- Packets --------------------------------------------------------------------------------------


def zero_stamp(stream, head: Sequence) -> int | None:
    """Returns the presentation stamp that counts as 0 s; None if the stream has no timestamps.

    It is the stream's start, unless all packets are presented later: the start of an AVI file with
    pictures out of order is that of decoding.

    Args:
      stream: the video stream.
      head: its first packets; None among them are passed over.
    """
    if stream.start_time is None:
        return None
    shown = [p.pts for p in head if p is not None and p.pts is not None and not p.is_discard]
    return max(stream.start_time, min(shown, default=stream.start_time))


def last_picture_end(container, stream, tail_of: float | None = None) -> tuple[float | None, int]:
    """Returns when the last picture that is in the file ends, in seconds, without decoding.

    Args:
      container: just opened.
      stream: its video stream.
      tail_of: a length in seconds, of which only the end is read; None reads the whole file.

    Returns:
      (end, how often the timestamps start over in what was read). The end is None where the end of
      `tail_of` cannot be found or the file has no picture.
    """
    packets = _whole_packets(container.demux(stream))
    head = list(itertools.islice(packets, HEAD_PACKETS))
    zero = zero_stamp(stream, head)
    packets = itertools.chain(head, packets)
    if tail_of is not None:
        if zero is None:
            return None, 0
        stamp = zero + int(max(0.0, tail_of - _TAIL_SECONDS) / stream.time_base)
        try:
            container.seek(stamp, stream=stream)
        except (av.FFmpegError, OSError):
            return None, 0
        packets = _whole_packets(container.demux(stream))
    return _end(packets, zero, stream.time_base, 1.0 / (frame_rate(container, stream) or 25.0))


def starts_over(container, stream) -> bool:
    """Whether timestamps start over anywhere in a file that was just opened; reads all of it."""
    return last_picture_end(container, stream)[1] > 0


def _whole_packets(packets: Iterable) -> Iterator:
    """Yields what is whole, until the end or where the file breaks off."""
    try:
        for packet in packets:
            if packet.size and not packet.is_corrupt and not packet.is_discard:
                yield packet
    except (av.FFmpegError, OSError):
        return


def _end(packets: Iterable, zero: int | None, time_base, period: float) -> tuple[float | None, int]:
    """Returns when the last of the packets' pictures ends, and how often timestamps start over."""
    last = before = None
    duration, pictures, shift, restarts = 0.0, 0, 0.0, 0
    line = time_line.TimeLine(period)
    for _, packet in line.joined((_decoding_time(p, time_base), p) for p in packets):
        pictures += 1
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None:
            continue
        zero = stamp if zero is None else zero
        time = float((stamp - zero) * time_base)
        if line.restarts > restarts and last is not None:
            # Decoding stamps show where, presentation stamps by how much the pictures move.
            shift, restarts = last + period - time, line.restarts
        time += shift
        if last is None or time > last:
            last, before = time, last
            duration = float((packet.duration or 0) * time_base)
        elif before is None or last > time > before:
            before = time
    if last is None:
        # No timestamps at all: picture follows on picture.
        return (pictures * period if pictures else None), 0
    interval = 0.0 if before is None else last - before
    return last + shown_for(period, duration, interval), restarts


def _decoding_time(packet, time_base) -> float | None:
    stamp = packet.dts if packet.dts is not None else packet.pts
    return None if stamp is None else float(stamp * time_base)


# --- Pictures -------------------------------------------------------------------------------------


class Clock:
    """Tells the time of decoded pictures, as FFmpeg's own programs do ("best effort").

    Files that store pictures out of order without presentation stamps, as AVI does, get made up
    ones, which may run backwards. Then the decoding stamps are right, which pictures carry as they
    come out of the decoder: as late as its delay, which is constant.
    """

    # Pictures after which stamps of a wrong order have run backwards: codecs reorder up to 16.
    LOOK_AHEAD = 17

    def __init__(self, container, stream, head: Sequence):
        """Starts at the start of a file.

        Args:
          container: the file.
          stream: its video stream.
          head: the first packets, as in `zero_stamp`.
        """
        self._codec, self._time_base = stream.codec_context, stream.time_base
        self._zero, self._zero_of_dts = zero_stamp(stream, head), None
        self._stores_pts = container.format.name != "avi"
        self._has_order, self._latest_packet = False, None
        self._faults = {"pts": 0, "dts": 0}
        self._latest: dict[str, int] = {}
        for packet in head:
            self.see_packet(packet)
        self._latest_packet = None

    @property
    def uses_dts(self) -> bool:
        """Whether presentation stamps ran backwards where decoding stamps did not."""
        return not self._is_trusted and self._faults["pts"] > self._faults["dts"]

    @property
    def is_sure(self) -> bool:
        """Whether it is settled which stamps are right."""
        is_settled = self._is_trusted or self.uses_dts or not self._latest
        return is_settled or not self._codec.has_b_frames

    @property
    def can_seek(self) -> bool:
        """Whether pictures after a jump can be told the same times as without it."""
        return self._zero is not None and self.is_sure and not self.uses_dts

    @property
    def _is_trusted(self) -> bool:
        # Presentation stamps that differ in order from the packets are the file's own.
        return self._stores_pts and self._has_order

    def see_packet(self, packet) -> None:
        """Takes notice of a packet, in the file's order; None is passed over."""
        if packet is None or packet.pts is None:
            return
        if self._latest_packet is not None and packet.pts < self._latest_packet:
            self._has_order = True
        self._latest_packet = packet.pts

    def see_picture(self, picture) -> None:
        """Takes notice of a picture, in the decoder's order."""
        for kind in ("pts", "dts"):
            stamp = getattr(picture, kind)
            if stamp is not None:
                self._faults[kind] += stamp < self._latest.get(kind, stamp)
                self._latest[kind] = stamp
        if self._zero is None:
            self._zero = picture.dts if picture.pts is None else picture.pts
        if self._zero_of_dts is None and picture.dts is not None:
            shown_at = 0 if picture.pts is None or self._zero is None else picture.pts - self._zero
            self._zero_of_dts = picture.dts - shown_at

    def moved(self) -> None:
        """Forgets what came before a jump."""
        self._latest, self._latest_packet = {}, None

    def seconds(self, picture) -> float | None:
        """Returns when a picture that was seen is shown; None if it has no stamp for that."""
        stamp, zero = picture.pts, self._zero
        if stamp is None or self.uses_dts:
            stamp, zero = picture.dts, self._zero_of_dts
        return None if stamp is None else float((stamp - zero) * self._time_base)

    def duration(self, picture) -> float:
        """Returns for how many seconds a picture is shown, as the file says; 0 if it does not."""
        return float(picture.duration * self._time_base) if picture.duration else 0.0

    def stamp(self, seconds: float) -> int:
        """Returns the presentation stamp of a time; only where `can_seek`."""
        return self._zero + int(seconds / self._time_base)
