"""msgpack as the reader's oracle."""

from __future__ import annotations

import msgpack

from openk.wire.reader import Limits, Notification, ProtocolError, Reader, Request
from tests.wire.frames import buffer, plain

WIDE = Limits(depth=40)


def compare_with_oracle(frame: bytes) -> None:
    """Nothing but a ProtocolError may come out; what is read, msgpack reads; where one is incomplete or
    skipped, msgpack agrees where it ends."""
    oracle = msgpack.Unpacker(strict_map_key=False, raw=True, max_buffer_size=1 << 20)
    oracle.feed(frame)
    reader = Reader(WIDE)
    try:
        found = reader.read(*buffer(frame))
    except ProtocolError as error:
        if error.fatal:
            return
        oracle.skip()
        assert reader.position == oracle.tell()
        return
    if found is None:
        assert not _skips(oracle)
        assert reader.needed > len(frame)
        return
    oracle.skip()
    if not isinstance(found, Notification):
        again = msgpack.Unpacker(unicode_errors="surrogateescape")
        again.feed(frame)
        fields = again.unpack()
        if isinstance(found, Request):
            assert fields == [0, found.msgid, found.method, fields[3]]
            assert repr([plain(found.params)]) == repr(fields[3] or [{}])  # repr: a NaN equals itself there
        else:
            assert repr([1, found.msgid, plain(found.error), plain(found.result)]) == repr(fields)
    assert reader.position == oracle.tell()


def _skips(oracle: msgpack.Unpacker) -> bool:
    """Whether a whole value is there."""
    try:
        oracle.skip()
    except msgpack.OutOfData:
        return False
    return True
