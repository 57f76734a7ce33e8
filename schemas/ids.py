"""Ids that come from content, so that a second run of anything finds what is done."""

import hashlib


def content_id(*parts: str | int | bytes) -> str:
    """blake2b-128 over the parts, hexadecimal: 32 characters.

    Parts are length-prefixed, so ("ab", "c") and ("a", "bc") differ.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
