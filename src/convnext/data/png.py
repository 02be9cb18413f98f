"""What a PNG tells without its pixels being unpacked, by its chunks (ISO/IEC 15948, clause 5)."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TELLING = frozenset({b"eXIf", b"tEXt", b"zTXt", b"iTXt"})  # may say how the image is to be turned


def is_png(data: bytes) -> bool:
    """Whether these are the bytes of one."""
    return data.startswith(_SIGNATURE)


def tells_late(data: bytes) -> bool:
    """Whether how it is turned may stand behind its pixels, where Pillow finds it once it has unpacked them."""
    place, behind = len(_SIGNATURE), False
    while place + 8 <= len(data):
        kind = data[place + 4 : place + 8]
        if behind and kind in _TELLING:
            return True
        behind = behind or kind == b"IDAT"
        place += 12 + int.from_bytes(data[place : place + 4])  # length, kind, content, checksum
    return False
