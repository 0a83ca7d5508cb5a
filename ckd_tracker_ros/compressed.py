"""What a compressed image says about itself, looked at before a decoder is let near it.

A few hundred bytes may claim to be an image of gigabytes, and decoders differ in what they make of a file that is cut
off. So only the three formats that image_transport's `compressed` sends (see sensor_msgs/CompressedImage)
are taken, and their size is read first.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

MOST_PIXELS = 64_000_000
"""Of a compressed image: above 8000x6000, and still decoded within seconds."""

_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # start-of-frame marks; those three say something else
_JPEG_BARE = {0x01, *range(0xD0, 0xD9)}  # marks without a length
_TIFF_SIDES = {256: "width", 257: "height", 322: "tile width", 323: "tile height"}
_TIFF_NUMBERS = {3: "H", 4: "I"}  # of 16 and 32 bits, the only types a side may have


class CompressedError(ValueError):
    """Bytes that are not a whole image of a known format, or too large a one; the text says which."""


def check(content: bytes) -> None:
    """Refuses what should not be decoded.

    Raises:
        CompressedError: no JPEG, PNG or TIFF, cut off, or of more than `MOST_PIXELS` pixels.
    """
    size = next((size for magic, size in _FORMATS.items() if content.startswith(magic)), None)
    if size is None:
        raise CompressedError("does not decode; jpeg, png and tiff are supported")
    try:
        width, height = size(content)
    except (struct.error, IndexError, KeyError) as error:
        raise CompressedError("is truncated or damaged: it does not say its size") from error
    if width < 1 or height < 1 or width * height > MOST_PIXELS:
        raise CompressedError(f"is {width}x{height} pixels large; allowed: 1 to {MOST_PIXELS:,} pixels")


def _png(content: bytes) -> tuple[int, int]:
    """The chunks have to lead to the end: OpenCV 5 allocates what a chunk claims to hold, gigabytes if need be."""
    position = 8
    while content[position + 4 : position + 8] != b"IEND":
        if position + 12 > len(content):
            raise CompressedError("is truncated: a png without an end")
        position += 12 + int.from_bytes(content[position : position + 4], "big")  # length, name, bytes, checksum
    if content[12:16] != b"IHDR":
        raise CompressedError("is damaged: a png that does not begin with its size")
    return struct.unpack_from(">II", content, 16)


def _jpeg(content: bytes) -> tuple[int, int]:
    """The end mark has to follow the start of the last scan: OpenCV fills in what a cut-off file lacks."""
    if content.rfind(b"\xff\xd9") <= content.rfind(b"\xff\xda"):
        raise CompressedError("is truncated: a jpeg without an end")
    sizes = list(_jpeg_sizes(content))
    return max(sizes, key=lambda size: size[0] * size[1])


def _jpeg_sizes(content: bytes) -> Iterator[tuple[int, int]]:
    """Of the frames before the first scan; more than one is not usual, but each may be believed by a decoder."""
    position, found = 2, False
    while not (found and content[position + 1] == 0xDA):
        if content[position] != 0xFF:
            raise CompressedError("is damaged: a jpeg whose marks do not follow each other")
        mark = content[position + 1]
        if mark == 0xFF or mark in _JPEG_BARE:
            position += 1 if mark == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", content, position + 2)
        if mark in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", content, position + 5)
            found = True
            yield width, height
        position += 2 + max(length, 2)


def _tiff(content: bytes) -> tuple[int, int]:
    """The first image of the file, or the tiles that it is stored in, if they are larger."""
    order = "<" if content.startswith(b"II") else ">"
    (position,) = struct.unpack_from(f"{order}I", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, position)
    sides = dict.fromkeys(_TIFF_SIDES.values(), 0)
    for entry in range(position + 2, position + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", content, entry)
        if tag in _TIFF_SIDES:
            (sides[_TIFF_SIDES[tag]],) = struct.unpack_from(order + _TIFF_NUMBERS[kind], content, entry + 8)
    if sides["tile width"] * sides["tile height"] > MOST_PIXELS:
        raise CompressedError(f"has tiles of {sides['tile width']}x{sides['tile height']} pixels")
    return sides["width"], sides["height"]


_FORMATS: dict[bytes, Callable[[bytes], tuple[int, int]]] = {
    b"\xff\xd8": _jpeg,
    b"\x89PNG\r\n\x1a\n": _png,
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
}
