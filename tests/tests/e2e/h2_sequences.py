"""Sequences of frames of HTTP/2, right and wrong, by a seed. Each is a list of pairs: what
a frame is, and its octets."""

import struct

(
    DATA,
    HEADERS,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    PUSH_PROMISE,
    PING,
    GOAWAY,
    WINDOW_UPDATE,
    CONTINUATION,
) = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20


def frame(kind, flags, stream, payload=b""):
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + payload
    )


def number(value):
    return struct.pack(">I", value)


def block(fields):
    """Literals that leave the table as it is."""
    octets = b""
    for name, value in fields:
        octets += b"\0"
        for text in (name.encode("latin-1"), value.encode("latin-1")):
            assert len(text) < 127
            octets += bytes([len(text)]) + text
    return octets


# Field sections that are malformed (RFC 9113, sections 8.1 to 8.3), by what is done to one
# that is not.
SPOILED = {
    "upper case": lambda fields: [*fields, ("X-Name", "v")],
    "empty name": lambda fields: [*fields, ("", "v")],
    "late pseudo": lambda fields: [*fields[:-1], ("x-name", "v"), fields[-1]],
    "pseudo twice": lambda fields: [fields[0], *fields],
    "unknown pseudo": lambda fields: [(":unknown", "v"), *fields],
    "pseudo left out": lambda fields: fields[1:],
    "connection": lambda fields: [*fields, ("connection", "close")],
    "transfer-encoding": lambda fields: [*fields, ("transfer-encoding", "chunked")],
    "te": lambda fields: [*fields, ("te", "gzip")],
    "LF in a value": lambda fields: [*fields, ("x-name", "a\nb")],
    "NUL in a value": lambda fields: [*fields, ("x-name", "a\0b")],
    "blank in a name": lambda fields: [*fields, ("x name", "v")],
    "blank before a value": lambda fields: [*fields, ("x-name", " v")],
}
HARMLESS = [("x-name", "v"), ("cookie", "a=1"), ("accept", "*/*"), ("x-empty", "")]


class Sequence:
    """Frames that one end sends. `kept` are streams that it may use, `head` the fields of
    a message that is as it should be."""

    def __init__(self, random, is_server):
        self.random, self.is_server = random, is_server
        self.frames = []
        self.next, self.used = 1, [1] if is_server else []

    def put(self, what, *frame_of):
        self.frames.append((what, frame(*frame_of)))

    def chance(self, share):
        return self.random.random() < share

    def any_stream(self):
        """One that is there, most of the time."""
        if self.used and self.chance(0.85):
            return self.random.choice(self.used)
        return self.random.choice([0, 2, self.next, self.next + 10, 0x80000001])

    def new_stream(self):
        if self.is_server:
            return 1
        stream, self.next = self.next, self.next + 2
        self.used.append(stream)
        return stream

    def message(self, length=None):
        """The fields of a head."""
        if self.is_server:
            status = self.random.choice(["200", "200", "200", "404", "103"])
            fields = [(":status", status)]
        else:
            method = "GET" if length is None else "POST"
            fields = [
                (":method", method),
                (":scheme", "http"),
                (":path", "/held"),
                (":authority", "web.test"),
            ]
            if self.chance(0.1):
                fields.append(("te", "trailers"))
        if length and fields[0] != (":status", "103") and self.chance(0.3):
            fields.append(("content-length", str(length)))
        if self.chance(0.5):
            fields.append(self.random.choice(HARMLESS))
        return fields

    def head(self, what, stream, fields, ends):
        """In one frame or several, with padding or without."""
        octets = block(fields)
        flags, front, rest = (END_STREAM if ends else 0), b"", b""
        if self.chance(0.1):
            flags |= PADDED
            rest = bytes(self.random.randrange(20))
            front = bytes([len(rest)])
        if self.chance(0.1):
            flags |= PRIORITIZED
            on = self.random.choice([0, 3, 0x80000000, 101])
            front += number(on) + b"\x0f"
            what += " that depends on itself" if on == stream else ""
        if len(octets) > 1 and self.chance(0.2):
            at = self.random.randrange(1, len(octets))
            self.put(what, HEADERS, flags, stream, front + octets[:at] + rest)
            self.put(f"{what}, continued", CONTINUATION, END_HEADERS, stream, octets[at:])
        else:
            self.put(what, HEADERS, flags | END_HEADERS, stream, front + octets + rest)

    # What goes on in order.

    def whole(self):
        self.head("a whole message", self.new_stream(), self.message(), True)

    def with_content(self):
        stream, length = self.new_stream(), self.random.choice([0, 1, 10, 1000])
        self.head("a head", stream, self.message(length), False)
        if self.chance(0.7):
            self.put("its content", DATA, END_STREAM, stream, bytes(length))

    def begun(self):
        self.head("a head alone", self.new_stream(), self.message(10), False)

    def data(self):
        length = self.random.choice([0, 1, 9, 10, 100])
        flags = END_STREAM if self.chance(0.5) else 0
        payload = bytes(length)
        if self.chance(0.2):
            flags, payload = flags | PADDED, b"\x05" + payload + bytes(5)
        self.put("DATA", DATA, flags, self.any_stream(), payload)

    def trailers(self):
        fields = [("x-sum", "9")]
        if self.chance(0.2):
            fields = self.random.choice(
                [[(":path", "/")], [("X-Sum", "9")], [("connection", "close")]]
            )
        self.head(f"trailers {fields}", self.any_stream(), fields, self.chance(0.8))

    def ping(self):
        self.put("PING", PING, self.random.choice([0, 0, 0, ACK]), 0, b"12345678")

    def settings(self):
        pairs = [
            (1, self.random.choice([0, 100, 4096, 65536])),
            (3, self.random.choice([0, 1, 100])),
            (4, self.random.choice([0, 1000, 65535, 2**31 - 1])),
            (5, self.random.choice([16384, 2**24 - 1])),
            (0xF000, 7),
        ]
        some = self.random.sample(pairs, self.random.randrange(3))
        self.put(
            f"SETTINGS {some}", SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in some)
        )

    def window(self):
        increment = self.random.choice([1, 1000, 1, 1000, 0, 0x7FFFFFFF])
        stream = self.random.choice([0, self.any_stream()])
        self.put(f"WINDOW_UPDATE of {increment}", WINDOW_UPDATE, 0, stream, number(increment))

    def reset(self):
        self.put(
            "RST_STREAM",
            RST_STREAM,
            0,
            self.any_stream(),
            number(self.random.choice([0, 2, 8, 99])),
        )

    def priority(self):
        on = self.random.choice([0, 1, 3, 5])
        self.put(f"PRIORITY on {on}", PRIORITY, 0, self.any_stream(), number(on) + b"\x0f")

    def unknown(self):
        self.put(
            "an unknown type",
            self.random.choice([0x0B, 0x42, 0xFF]),
            self.random.randrange(256),
            self.any_stream(),
            b"some",
        )

    # What does not.

    def malformed(self):
        name = self.random.choice(list(SPOILED))
        fields = SPOILED[name](self.message())
        self.head(f"a head with: {name}", self.new_stream(), fields, self.chance(0.8))

    def wrong_length(self):
        kind, right = self.random.choice(
            [
                (PRIORITY, 5),
                (RST_STREAM, 4),
                (PING, 8),
                (WINDOW_UPDATE, 4),
                (SETTINGS, 6),
                (GOAWAY, 8),
            ]
        )
        length = right + self.random.choice([-1, 1]) if kind != GOAWAY else 7
        stream = 0 if kind in (PING, SETTINGS, GOAWAY) else self.any_stream()
        self.put(f"type {kind} of {length} octets", kind, 0, stream, bytes(length))

    def wrong_stream(self):
        what = self.random.choice([(PING, b"12345678"), (SETTINGS, b""), (GOAWAY, bytes(8))])
        self.put(f"type {what[0]} on a stream", what[0], 0, 1, what[1])

    def bad_settings(self):
        pair = self.random.choice([(2, 2), (4, 2**31), (5, 16383), (5, 2**24)])
        self.put(f"SETTINGS {pair}", SETTINGS, 0, 0, struct.pack(">HI", *pair))

    def bad_acknowledgement(self):
        self.put("SETTINGS that acknowledge with more", SETTINGS, ACK, 0, bytes(6))

    def bad_padding(self):
        kind = self.random.choice([DATA, HEADERS])
        self.put(
            f"padding beyond type {kind}",
            kind,
            PADDED | END_HEADERS,
            self.any_stream() if kind == DATA else self.new_stream(),
            b"\xff" + bytes(3),
        )

    def lone_continuation(self):
        self.put(
            "CONTINUATION alone",
            CONTINUATION,
            END_HEADERS,
            self.any_stream(),
            block([("x-name", "v")]),
        )

    def broken_block(self):
        octets = self.random.choice(
            [
                b"\x80",
                b"\xff\xff\xff\xff\xff\x0f",
                b"\x3f\xe2\x1f",
                b"\0\x05ab",
                b"\xbf",
                b"\0\x81\x00\x01v",
            ]
        )
        self.put(
            f"a field block {octets.hex()}",
            HEADERS,
            END_HEADERS | END_STREAM,
            self.new_stream(),
            octets,
        )

    def interrupted(self):
        octets, stream = block(self.message()), self.new_stream()
        self.put("a head without its rest", HEADERS, END_STREAM, stream, octets[:9])
        between = self.random.choice(
            [
                (PING, 0, 0, b"12345678"),
                (DATA, 0, stream, b"x"),
                (0x42, 0, 0, b"x"),
                (CONTINUATION, END_HEADERS, stream + 2, octets[9:]),
            ]
        )
        self.put("and something between", *between)

    def old_stream(self):
        stream = self.random.choice([2, 4, 1])
        self.head(f"a head on stream {stream}", stream, self.message(), True)

    def push(self):
        self.put(
            "PUSH_PROMISE",
            PUSH_PROMISE,
            END_HEADERS,
            1,
            number(2)
            + block(
                [
                    (":method", "GET"),
                    (":scheme", "http"),
                    (":path", "/"),
                    (":authority", "web.test"),
                ]
            ),
        )

    def too_large(self):
        self.put("DATA of 16,385 octets", DATA, 0, self.any_stream(), bytes(16385))


RIGHT = [
    "whole",
    "whole",
    "with_content",
    "with_content",
    "begun",
    "data",
    "data",
    "trailers",
    "ping",
    "settings",
    "window",
    "reset",
    "priority",
    "unknown",
]
WRONG = [
    "malformed",
    "malformed",
    "malformed",
    "wrong_length",
    "wrong_stream",
    "bad_settings",
    "bad_acknowledgement",
    "bad_padding",
    "lone_continuation",
    "broken_block",
    "interrupted",
    "old_stream",
    "push",
    "too_large",
]


def sequence(random, is_server):
    made = Sequence(random, is_server)
    for _ in range(random.randrange(1, 8)):
        right = random.random() < 0.75
        getattr(made, random.choice(RIGHT if right else WRONG))()
    return made.frames
