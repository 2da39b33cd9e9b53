"""How long a recording's container says that its audio is, which not every writer could know.

libsndfile accepts most sizes that a stream's writer leaves open, but not those of a writer that was killed, nor CAF's
and RF64's, and mentions a file that is cut short in its log only.
"""

import os
import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

# By the first four bytes: where the chunks begin, a chunk's header, the name of that with the audio, bytes in it before
# the samples, and what chunks are aligned to.
_CHUNKED = {
    b"RIFF": (12, "<4sI", b"data", 0, 2),
    b"RIFX": (12, ">4sI", b"data", 0, 2),
    b"RF64": (12, "<4sI", b"data", 0, 2),
    b"FORM": (12, ">4sI", b"SSND", 8, 2),
    b"caff": (8, ">4sq", b"data", 4, 1),
}
# From here on a size that the file does not have is a placeholder, by the bytes of its field.
_PLACEHOLDER = {4: 2**31 - 2**16, 8: 2**62}

# Where a file's first bytes are, these bytes, what such a file is called, and FFmpeg's demuxer of it.
_MEDIA = (
    (4, b"ftyp", ("MP4", "mov")),
    (0, b"\x1aE\xdf\xa3", ("WebM or Matroska", "matroska")),
    (0, b"0&\xb2u\x8ef\xcf\x11", ("WMA", "asf")),
    (0, b"#!AMR", ("AMR", "amr")),
)


@dataclass(frozen=True)
class AudioSize:
    """The field of a file that says how many bytes of audio follow."""

    offset: int  # of the field in the file
    format: str  # of the field, as struct has it
    announced: int  # bytes
    available: int  # bytes from the start of the audio to the end of the file
    unwritten: bool  # announced are no samples, but what follows is no part of the container

    @property
    def placeholder(self) -> bool:
        """Whether the writer did not know the size: the audio goes on to the end of the file."""
        least = _PLACEHOLDER[struct.calcsize(self.format)]
        return self.unwritten or self.announced < 0 or self.available < self.announced >= least

    @property
    def cut(self) -> bool:
        """Whether the file ends before its audio does."""
        return self.announced > self.available and not self.placeholder

    def patch(self) -> bytes:
        """The field with the size that the audio has."""
        return struct.pack(self.format, min(self.available, 2 ** (8 * struct.calcsize(self.format) - 1) - 1))


def audio_size(file: BinaryIO) -> AudioSize | None:
    """The size field of an open WAV, RF64, AIFF, CAF, AU or NIST file; None of any other."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(1024)
    if head[:4] == b".snd" and len(head) > 12:
        start, size = struct.unpack(">II", head[4:12])
        return AudioSize(8, ">I", size, end - start, size == 0 < end - start)
    if head[:7] == b"NIST_1A":
        fields = dict(re.findall(rb"(sample_count|channel_count|sample_n_bytes) -i (\d+)", head))
        size = int(fields.get(b"sample_count", 0)) * int(fields.get(b"channel_count", 1))
        return AudioSize(0, "<Q", size * int(fields.get(b"sample_n_bytes", 1)), end - 1024, False)
    return _chunked(file, end, *_CHUNKED[head[:4]]) if head[:4] in _CHUNKED else None


def _chunked(file, end, at, header, audio, lead, alignment):
    byte_order, kind = header[0], header[-1]
    length, found, large = struct.calcsize(header), None, None
    while True:
        file.seek(at)
        chunk = file.read(length)
        if len(chunk) < length or not all(32 <= sign < 127 for sign in chunk[:4]):
            break  # the end, or samples
        name, size = struct.unpack(header, chunk)
        start = at + length
        if name == b"ds64":
            large = start + 8
        elif name == audio and not found:
            found = start, at + 4, byte_order + kind, size
            if large and size == 2**32 - 1:  # RF64 has it where there is place for it
                file.seek(large)
                found = start, large, "<Q", *struct.unpack("<Q", file.read(8))
        if not 0 <= size <= end - start:
            break
        at = start + size + -size % alignment
    if not found:
        return None
    start, offset, form, size = found
    return AudioSize(offset, form, size, end - start, 0 <= size <= lead < end - start and at < end)


def mp3_states_length(file: BinaryIO) -> bool:
    """Whether the first frame of an open MP3 file holds the number of frames: a header Xing, Info or VBRI."""
    file.seek(_tag_size(file))
    return re.search(rb"Xing|Info|VBRI", file.read(64)) is not None


def media_format(file: BinaryIO) -> tuple[str, str] | None:
    """(what it is called, FFmpeg's demuxer of it) of an open file that libsndfile does not know and FFmpeg does, by its
    first bytes; None of any other."""
    file.seek(0)
    head = file.read(12)
    for offset, sign, kind in _MEDIA:
        if head[offset:].startswith(sign):
            return kind
    file.seek(_tag_size(file))
    first, second = (file.read(2) + bytes(2))[:2]
    return ("AAC", "aac") if first == 0xFF and second & 0xF6 == 0xF0 else None  # MPEG audio has other bits there


def _tag_size(file):
    """Bytes of the tag ID3 before an MP3 or an AAC stream."""
    file.seek(0)
    tag = file.read(10)
    if tag[:3] != b"ID3":
        return 0
    return 10 + sum(byte << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=False))  # in seven bits each
