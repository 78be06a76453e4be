"""Clients that send a byte now and then to hold a connection open.

They begin with the session and are looked at last (pytest takes files by name), because the server gives them time: their patience
costs the other tests none.
"""

import time

from conftest import HEAD_TIME, BODY_TIME

# The server looks at the clock now and then, and the machine may be busy.
TOLERANCE = 5


def test_a_head_that_trickles(trickles):
    trickle = trickles["head"]
    trickle.wait(HEAD_TIME + TOLERANCE)
    assert HEAD_TIME - 1 <= trickle.lasted <= HEAD_TIME + TOLERANCE
    assert trickle.received == b"" or trickle.received.startswith(b"HTTP/1.1 408")


def test_a_body_that_trickles(trickles):
    trickle = trickles["body"]
    trickle.wait(BODY_TIME + TOLERANCE)
    assert BODY_TIME - 1 <= trickle.lasted <= BODY_TIME + TOLERANCE
    assert trickle.received.startswith(b"HTTP/1.1 408")
    assert b'{"error":' in trickle.received


def test_slow_clients_left_no_trace(server, trickles):
    """All connections of this session but the slow clients' own are closed."""
    deadline = time.monotonic() + 10
    while (count := server.metric("outhaul_connections_open")) > 20 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert count <= 20
