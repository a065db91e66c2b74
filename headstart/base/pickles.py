"""Read the opcodes of a pickle without executing any: what archives of others hold is only parsed.

The readers above this file accept the few opcodes that plain data needs and refuse all others.
"""

import io
import pickletools
from collections.abc import Iterator

Opcode = tuple[str, object, int]  # name, argument, offset of its first byte in the file
MEMO = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})  # name the value just made


def opcodes(file: io.BytesIO) -> Iterator[Opcode]:
    """Yield the opcodes of the pickle that begins here, up to its STOP, where the file is left.

    Raises ValueError if the bytes are no pickle.

    >>> [name for name, argument, offset in opcodes(io.BytesIO(b"]K\\x01a."))]
    ['EMPTY_LIST', 'BININT1', 'APPEND', 'STOP']
    """
    try:
        for opcode, argument, offset in pickletools.genops(file):
            assert offset is not None  # the file tells its place
            yield opcode.name, argument, offset
    except Warning as error:  # of a stray backslash, under -W error
        raise ValueError(str(error)) from None
