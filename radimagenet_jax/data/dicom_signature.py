"""What tells a DICOM file from any other, by its beginning and without pydicom."""

import struct

# After a preamble of 128 bytes that may hold anything (PS3.10 7.1).
MAGIC = b"DICM"
MAGIC_OFFSET = 128
# Value representations whose length has 4 bytes, behind 2 that are 0 (PS3.5 7.1.2).
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
# Which elements begin a data set, and how long any of them may be.
_FIRST_GROUPS = (0x0002, 0x0008)
_MAX_FIRST_LENGTH = 2**16


def is_dicom(encoded: bytes) -> bool:
    """Tells whether a file is DICOM by its content, whatever its name; its beginning is enough.

    Either it has DICOM's mark, or, as some consoles write it, it begins with the data set itself:
    elements of the first groups in ascending order, implicit or explicit, of both byte orders.
    """
    return encoded[MAGIC_OFFSET : MAGIC_OFFSET + len(MAGIC)] == MAGIC or (
        _begins_data_set(encoded, "<") or _begins_data_set(encoded, ">")
    )


def _begins_data_set(encoded: bytes, order: str) -> bool:
    position, previous, elements = 0, (0, 0), 0
    while elements < 3 and position + 12 <= len(encoded):
        group, _ = tag = struct.unpack_from(f"{order}HH", encoded, position)
        if tag <= previous or (not elements and group not in _FIRST_GROUPS):
            return False
        vr = encoded[position + 4 : position + 6]
        if vr in _LONG_VRS:
            (length,) = struct.unpack_from(f"{order}I", encoded, position + 8)
            start = position + 12
        elif vr in _SHORT_VRS:
            (length,) = struct.unpack_from(f"{order}H", encoded, position + 6)
            start = position + 8
        else:  # implicit, which is little endian only
            (length,) = struct.unpack_from("<I", encoded, position + 4)
            start = position + 8
            if order == ">" or group == 0x0002:
                return False
        # A sequence of unknown length: what is inside does not matter any more.
        if length == 0xFFFFFFFF and elements:
            return True
        if length > _MAX_FIRST_LENGTH:
            return False
        position, previous, elements = start + length, tag, elements + 1
    return elements >= 2
