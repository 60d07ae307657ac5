"""Inflating what a stranger has deflated, up to a limit."""

import zlib

from radimagenet_jax.errors import DataError


def inflated(content: bytes, limit: int, name: str, *, keep: bool = True) -> bytes:
    """Inflates a raw stream of deflate.

    Args:
      content: The stream.
      limit: The most bytes that are inflated.
      name: What to call the file in a message.
      keep: False to learn only whether the limit is reached, without the memory.

    Returns:
      At most `limit` bytes; without `keep`, b'' unless they are reached.

    Raises:
      DataError: If the stream is damaged.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    parts: list[bytes] = []
    done = 0
    try:
        while not inflater.eof and done < limit:
            part = inflater.decompress(content, min(2**20, limit - done))
            content = inflater.unconsumed_tail
            if not part:
                break
            done += len(part)
            if keep:
                parts.append(part)
    except zlib.error:
        raise DataError(f"{name} is cut short or damaged; download or copy it again.") from None
    return b"".join(parts) if keep else b"\0" * (done >= limit)
