"""Where the proxy and the library h2 differ, and the proxy may."""

import re

# What becomes of a stream whose peer has reset it is the peer's matter.
GONE = "gone"


def differ(ours, theirs):
    # Whoever has the proxy call gets an answer if it is one.
    if ours.status != theirs.status and theirs.connection is None:
        return True
    if ours.connection is not None or theirs.connection is not None:
        return ours.connection != theirs.connection
    streams = [one for one in {*ours.streams, *theirs.streams} if theirs.streams.get(one) != GONE]
    return any(ours.streams.get(one, "open") != theirs.streams.get(one, "open") for one in streams)


def told(outcome, stream):
    """What was done about a frame of this stream."""
    if outcome.connection is not None:
        return f"connection {outcome.connection}"
    return f"stream {outcome.streams.get(stream, 'open')}"


MALFORMED = "8.1.1: what is malformed is an error of its stream; h2 ends the connection"
BEHIND = "5.1: what comes behind an end is an error of the stream or of the connection"

# Role, frame, state of its stream, what the proxy does, what h2 does, and why the proxy
# is right: the section of RFC 9113.
KNOWN = [
    (".*", "a head with: .*", "idle|open", "stream 1", "connection 1", MALFORMED),
    ("server", "trailers .*", "idle", "stream 1", "connection 1", MALFORMED),
    (
        ".*",
        "trailers .*|a head.*|a whole message.*|DATA.*|its content",
        "open",
        "stream 1",
        "connection 1",
        MALFORMED,
    ),
    (
        "client",
        "a head with: .*|a whole message.*",
        "open",
        "stream open",
        "connection 1",
        MALFORMED + ", and this stream is at its end",
    ),
    (
        ".*",
        "SETTINGS that acknowledge with more",
        ".*",
        "connection 6",
        "connection 1",
        "6.5: the code is FRAME_SIZE_ERROR",
    ),
    (
        ".*",
        "a field block .*",
        ".*",
        "connection 9",
        "connection 1",
        "4.3: the code is COMPRESSION_ERROR",
    ),
    (
        ".*",
        "DATA of 16,385 octets",
        ".*",
        "connection 6",
        "connection 1",
        "4.2: the code is FRAME_SIZE_ERROR, whatever else is wrong",
    ),
    (
        ".*",
        "CONTINUATION alone",
        "gone|answer|[0-9]+",
        "connection 1",
        "stream .*",
        "6.10: it is an error whatever its stream is",
    ),
    (
        ".*",
        "RST_STREAM",
        "idle",
        "connection 1",
        "stream open",
        "6.4: nobody resets an idle stream",
    ),
    (
        ".*",
        "WINDOW_UPDATE of 0",
        "open|answer",
        "stream 1",
        "connection 1",
        "6.9: it is an error of the stream",
    ),
    (
        ".*",
        "WINDOW_UPDATE of 0",
        "answer|gone|[0-9]+",
        "stream .*",
        "connection 1",
        "5.1: windows of a stream that has ended are nobody's",
    ),
    (
        ".*",
        "PRIORITY on .*|.* that depends on itself.*",
        ".*",
        "stream 1",
        "connection 1",
        "RFC 7540 5.3.1: it is an error of the stream",
    ),
    (".*", "type 2 of .*", ".*", "stream 6", "connection 6", "6.3: it is an error of the stream"),
    (
        ".*",
        "trailers .*|a head.*|a whole message.*|DATA.*|its content",
        "gone|[0-9]+|answer",
        "connection 5",
        "connection 1|stream .*",
        BEHIND,
    ),
    (
        ".*",
        "trailers .*|a head.*|a whole message.*|DATA.*|its content",
        "gone|[0-9]+|answer",
        "stream .*",
        "connection [15]",
        BEHIND,
    ),
    (
        ".*",
        "trailers .*|a head.*|a whole message.*|DATA.*|its content",
        "[0-9]+",
        "stream 5",
        "stream 1",
        BEHIND + ", whatever else is wrong with it",
    ),
    (
        ".*",
        "WINDOW_UPDATE of 2147483647",
        "1( while open)?",
        "stream 3",
        "stream 1",
        "5.4.2: of two errors one is told",
    ),
    (
        ".*",
        "trailers .*|a head.*|a whole message.*|DATA.*|its content",
        "[0-9]+ while open",
        "stream [0-9]+",
        "connection [15]",
        "5.1: what comes behind a reset is discarded",
    ),
    (
        ".*",
        ".* that depends on itself.*",
        ".*",
        "stream 1",
        "stream 5",
        "5.4.2: of two errors one is told",
    ),
    (
        ".*",
        "SETTINGS .*",
        ".*",
        "stream open",
        "connection 3",
        "5.1: windows of a stream that was reset are nobody's",
    ),
    (
        ".*",
        "PRIORITY on .*",
        "gone|answer|idle|[0-9]+( while open)?",
        "connection 1",
        "stream .*",
        "5.4: an error of a stream that is not there is one of the connection",
    ),
    (
        ".*",
        "RST_STREAM",
        "1( while open)?",
        "stream open",
        "stream 1",
        "5.4.2: whoever resets it needs no reset",
    ),
    (
        ".*",
        "trailers .*|a head with: pseudo left out.*",
        "open",
        "stream 1",
        "stream answer",
        "8.1.1: content is counted before trailers too",
    ),
]


def known(role, what, stream, before, ours, theirs):
    key = (role, what, str(before), told(ours, stream), told(theirs, stream))
    for *patterns, reason in KNOWN:
        if all(re.fullmatch(pattern, part) for pattern, part in zip(patterns, key)):
            return reason
    return None
