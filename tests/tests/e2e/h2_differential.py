"""Sequences of frames to the proxy and to the library h2, and what both make of them:
`h2_differential.py server|client LISTENER PORT SEED COUNT`. As `server` the proxy is
called, and its upstream is at PORT; as `client` it calls what listens at PORT."""

import random
import re
import socket
import struct
import sys
import threading

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from h2_known import differ, known
from h2_sequences import (
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    frame,
    sequence,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PROBE = frame(PING, 0, 0, b"probe\0\0\0")
ANSWER, OPEN, GONE = "answer", "open", "gone"
# Frames that are of no interest behind the end of their stream.
DISCARDED = "a head(?! without).*|trailers .*|DATA|its content|a whole message.*|RST_STREAM|WINDOW_UPDATE of .*|PRIORITY on .*|an unknown type"


class Outcome:
    """The code that ended the connection, or none; of each stream the code of its reset,
    or what it is."""

    def __init__(self):
        self.connection, self.streams, self.status = None, {}, None

    def __str__(self):
        return f"connection {self.connection}, streams {self.streams}, status {self.status}"

    def take(self, kind, stream, payload):
        """A frame that came from whom it is the outcome of."""
        if kind == RST_STREAM and not isinstance(self.streams.get(stream), int):
            self.streams[stream] = int.from_bytes(payload, "big")
        elif kind == GOAWAY and payload[4:8] != bytes(4):
            self.connection = int.from_bytes(payload[4:8], "big")


def stream_of(octets):
    return struct.unpack(">I", octets[5:9])[0] & 0x7FFFFFFF


def ends(octets, stream):
    """Whether it is the last frame of this stream."""
    is_last = octets[3] == RST_STREAM or octets[3] in (DATA, HEADERS) and octets[4] & END_STREAM
    return is_last and stream_of(octets) == stream


def frames(octets):
    """Whole frames, and what is left."""
    found = []
    while len(octets) >= 9:
        length = int.from_bytes(octets[:3], "big")
        if len(octets) < 9 + length:
            break
        found.append((octets[3], stream_of(octets), octets[9 : 9 + length], octets[4]))
        octets = octets[9 + length :]
    return found, octets


def of_library(sent, is_client):
    """What h2 makes of it, and of how many frames: an error of the connection is its end.
    What is malformed is one for h2; where the rest allows, it goes on as if that stream had
    been reset and the rest of it discarded (RFC 9113, sections 5.1 and 8.1.1)."""
    left, count, reset = list(enumerate(sent)), len(sent), []
    while True:
        outcome, taken = of_connection([one for _, one in left], is_client)
        if taken <= len(left) and outcome.connection is not None:
            number, (what, octets) = left[taken - 1]
            stream = stream_of(octets)
            if not is_malformed(outcome, what, stream, is_client):
                return outcome, number + 1
            reset.append(stream)
            rest = left[taken:]
            left = left[: taken - (2 if what.endswith(", continued") else 1)]
            for number, (what, octets) in rest:
                if stream_of(octets) != stream:
                    left.append((number, (what, octets)))
                elif not re.fullmatch(DISCARDED, what):
                    count = number
                    break
            continue
        for stream in reset:
            if not isinstance(outcome.streams.get(stream), int):
                outcome.streams[stream] = 1
        return outcome, count


def is_malformed(outcome, what, stream, is_client):
    """Whether that is what the library has ended the connection for."""
    if outcome.connection != 1:
        return False
    is_new = stream not in outcome.streams and not is_client
    if is_new:
        return (
            stream % 2 == 1
            and stream > max(outcome.streams, default=0)
            and what.startswith("a head with: ")
        )
    is_message = re.fullmatch("a head.*|a whole message.*|trailers .*|DATA|its content", what)
    return bool(is_message) and outcome.streams.get(stream) == OPEN


def of_connection(sent, is_client):
    """The same, to its first error of the connection."""
    outcome, status = Outcome(), None
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=is_client))
    if is_client:
        connection.local_settings[h2.settings.SettingCodes.ENABLE_PUSH] = 0
        connection.local_settings.acknowledge()
    connection.initiate_connection()
    if is_client:
        fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "web.test"),
        ]
        connection.send_headers(1, fields, end_stream=True)
        outcome.streams[1] = OPEN
    connection.receive_data((b"" if is_client else PREFACE) + frame(SETTINGS, 0, 0))
    connection.data_to_send()
    for number, (_, octets) in enumerate([*sent, ("PING", PROBE)]):
        try:
            events = connection.receive_data(octets)
        except h2.exceptions.ProtocolError as error:
            outcome.connection = int(error.error_code)
            return outcome, number + 1
        for event in events:
            stream = getattr(event, "stream_id", None)
            if isinstance(event, h2.events.RequestReceived):
                outcome.streams.setdefault(stream, OPEN)
            elif isinstance(event, h2.events.ResponseReceived):
                status = int(dict(event.headers)[b":status"])
            elif isinstance(event, h2.events.StreamEnded) and outcome.streams.get(stream) == OPEN:
                outcome.streams[stream], outcome.status = ANSWER, status
            elif isinstance(event, h2.events.StreamReset):
                outcome.streams[stream] = GONE if event.remote_reset else int(event.error_code)
        for kind, stream, payload, _ in frames(connection.data_to_send())[0]:
            outcome.take(kind, stream, payload)
    return outcome, len(sent)


class Peer:
    """One end of a connection to the proxy."""

    def __init__(self, stream):
        self.stream, self.rest, self.outcome, self.is_closed = stream, b"", Outcome(), False
        stream.settimeout(5)

    def send(self, octets):
        try:
            self.stream.sendall(octets)
        except OSError:
            pass

    def until(self, is_over):
        """Takes frames until one is the last, or the connection has ended."""
        while not self.is_closed:
            found, self.rest = frames(self.rest)
            for number, (kind, stream, payload, flags) in enumerate(found):
                self.outcome.take(kind, stream, payload)
                if kind == HEADERS:
                    self.outcome.streams.setdefault(stream, ANSWER)
                if is_over(kind, stream, payload, flags):
                    again = [
                        frame(kind, flags, stream, payload)
                        for kind, stream, payload, flags in found[number + 1 :]
                    ]
                    self.rest = b"".join(again) + self.rest
                    return
            try:
                received = self.stream.recv(65536)
            except ConnectionResetError:
                received = b""
            self.rest += received
            self.is_closed = not received

    def probe(self):
        """Until it has taken all that was sent, or has ended the connection."""
        self.until(lambda kind, stream, payload, flags: kind == PING and payload == PROBE[9:])

    def settle(self, sent, theirs):
        """What the library has ended or answered comes to an end here too, if slowly, and
        what it has ended the connection for may be the end of a stream."""
        streams = {stream for stream, what in theirs.streams.items() if what not in (OPEN, GONE)}
        if theirs.connection is not None:
            streams = {stream_of(sent[-1][1])} - {0}
        self.stream.settimeout(2)
        for stream in streams:
            try:
                while stream not in self.outcome.streams and not self.is_closed:
                    self.until(lambda *of: of[1] == stream)
            except TimeoutError:
                return

    def finish(self):
        """Ends the connection, and knows that the proxy has."""
        try:
            self.stream.shutdown(socket.SHUT_WR)
            while self.stream.recv(65536):
                pass
        except OSError:
            pass
        self.stream.close()


# The proxy is called.

go = threading.Event()


def upstream(listener):
    """HTTP/1.1, which answers when it may."""

    def serve(stream):
        received = b""
        while True:
            more = stream.recv(65536)
            if not more:
                return
            received += more
            head, found, body = received.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            chunked = b"chunked" in head.lower()
            ended = (
                re.search(rb"(?s)(^|\r\n)0\r\n.*\r\n$", body)
                if chunked
                else len(body) >= int(length[1] if length else 0)
            )
            if found and ended:
                received = b""
                go.wait(5)
                stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def guarded(stream):
        try:
            serve(stream)
        except OSError:
            pass

    while True:
        threading.Thread(target=guarded, args=(listener.accept()[0],), daemon=True).start()


def called(address, sent, theirs):
    go.clear()
    peer = Peer(socket.create_connection(address))
    peer.send(PREFACE + frame(SETTINGS, 0, 0) + b"".join(octets for _, octets in sent) + PROBE)
    peer.probe()
    go.set()
    peer.settle(sent, theirs)
    peer.finish()
    return peer.outcome


# The proxy calls.


def calls(address, listener, sent, theirs):
    caller = socket.create_connection(address, timeout=5)
    caller.sendall(b"GET / HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n")
    peer = Peer(listener.accept()[0])
    peer.stream.recv(len(PREFACE), socket.MSG_WAITALL)
    peer.until(lambda kind, *_: kind == HEADERS)
    peer.outcome = Outcome()
    peer.send(frame(SETTINGS, 0, 0) + b"".join(octets for _, octets in sent) + PROBE)
    peer.probe()
    if theirs.streams[1] != ANSWER:
        peer.settle(sent, theirs)
    peer.finish()
    received = b""
    try:
        while more := caller.recv(65536):
            received += more
    except OSError:
        pass
    caller.close()
    status = status_of(received)
    if status in (200, 404):
        peer.outcome.status = status
        peer.outcome.streams.setdefault(1, ANSWER)
    return peer.outcome


def status_of(received):
    """The status of an answer that is whole, or none."""
    head, found, content = received.partition(b"\r\n\r\n")
    status = int(head[9:12]) if found else None
    if status and status < 200:
        return status_of(content)
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    whole = (
        len(content) == int(length[1])
        if length
        else re.search(rb"(?s)(^|\r\n)0\r\n.*\r\n$", content)
    )
    return status if whole else None


def main():
    role, address, port, seed, count = sys.argv[1:]
    host, at = address.rsplit(":", 1)
    address = (host, int(at))
    listener = socket.create_server(("127.0.0.1", int(port)), backlog=100)
    if role == "server":
        threading.Thread(target=upstream, args=(listener,), daemon=True).start()
    else:
        listener.settimeout(5)

    def both(sent):
        theirs, taken = of_library(sent, role == "client")
        if role == "server":
            return called(address, sent[:taken], theirs), theirs
        return calls(address, listener, sent[:taken], theirs), theirs

    def explain(sent):
        """Of the first frame that makes a difference: that it is known, or what it is."""
        for length in range(1, len(sent) + 1):
            if length < len(sent) and sent[length][0].endswith(", continued"):
                continue
            ours, theirs = both(sent[:length])
            if differ(ours, theirs):
                what, octets = sent[length - 1]
                stream = stream_of(octets)
                before = of_library(sent[: length - 1], role == "client")[0].streams.get(
                    stream, "idle"
                )
                if isinstance(before, int) and not any(
                    ends(octets, stream) for _, octets in sent[: length - 1]
                ):
                    before = f"{before} while open"
                key = (what, stream, before, ours, theirs)
                return known(role, *key), sent[:length], key
        return None, sent, ("it does not come again", 0, None, None, None)

    wrong, excused = 0, {}
    for number in range(int(count)):
        sent = sequence(random.Random(f"{seed}.{number}"), role == "client")
        if not differ(*both(sent)):
            continue
        reason, shortest, (what, stream, before, ours, theirs) = explain(sent)
        if reason:
            excused[reason] = excused.get(reason, 0) + 1
            continue
        wrong += 1
        print(
            f"sequence {number} of seed {seed}, the proxy as {role}: {what}, stream {stream}, which is {before}"
        )
        for said, octets in shortest:
            print(
                f"    {said}: stream {stream_of(octets)}, flags {octets[4]:#x}, {len(octets) - 9} octets"
            )
        print(f"  the proxy: {ours}\n  h2:        {theirs}")
    for reason, times in sorted(excused.items()):
        print(f"{times} times: {reason}")
    print(f"{role}: {count} sequences of seed {seed}, {wrong} differ")
    sys.exit(wrong > 0)


main()
