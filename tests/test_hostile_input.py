"""What a peer may send to make the front work for it: each stays cheap, each gets its answer."""

import time

import pytest

from asrd import wire
from asrd.errors import ProtocolError


def test_finding_a_duplicate_key_takes_no_longer_than_reading_the_keys() -> None:
    """One event with 25,000 keys, the last two the same, once held the event loop for 19 s."""
    keys = [f'"{number:04x}":1' for number in range(25_000)]
    raw = ("{" + ",".join([*keys, keys[-1]]) + "}").encode()
    decoder = wire.Decoder(wire.Limits())
    decoder.receive(b'{"type": "ping", "data_length": %d}\n' % len(raw) + raw)
    started = time.process_time()
    with pytest.raises(ProtocolError, match="'61a7' stands there twice"):
        decoder.next_event()
    # It takes some 50 ms; only the quadratic search takes longer than this.
    assert time.process_time() - started < 3
