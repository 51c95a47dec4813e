# WebSocket at both ends of a proxy, over HTTP/1.1 (websockets) and HTTP/2 (h2 and wsproto):
#   websocket.py serve http1|http2|http2-plain PORT    does what its clients say; the last
#                                                      one does not allow extended CONNECT
#   websocket.py talk http1|http2 PORT                 says it, and checks what comes of it
import ctypes, socket, sys, threading

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import serve
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from http2_streams import EXTENDED, Shared, Stream, reach

BIG = bytes(range(256)) * 5_000


class Multiplexed(Stream):
    """A WebSocket on a stream of HTTP/2."""

    def __init__(self, shared, number, role=ConnectionType.CLIENT):
        super().__init__(shared, number)
        self.frames = Connection(role)

    def run(self, fields):
        head = dict(fields)
        assert head[":method"] == "CONNECT" and head[":protocol"] == "websocket", head
        with self.shared.change:
            self.http.send_headers(self.number, [(":status", "200"), ("x-own", "1")])
            self.shared.flush()
        obey(self, shown(head[":path"], fields))

    def parts(self, data):
        self.frames.receive_data(data)
        return self.frames.events()

    def say(self, event):
        self.write(self.frames.send(event))

    def message(self):
        """the next message; (code, reason): the other side closes"""
        parts = []
        while event := self.read():
            if isinstance(event, Ping):
                self.say(event.response())
            elif isinstance(event, (TextMessage, BytesMessage)):
                parts.append(event.data)
                if event.message_finished:
                    return type(event.data)().join(parts)
            elif isinstance(event, CloseConnection):
                return event.code, event.reason
        raise EOFError

    def ping(self):
        self.say(Ping(payload=b"are you there"))
        event = self.read()
        return isinstance(event, Pong) and bytes(event.payload) == b"are you there"

    def send(self, message):
        kind = TextMessage if isinstance(message, str) else BytesMessage
        self.say(kind(data=message))

    def close(self, code, reason):
        self.say(CloseConnection(code=code, reason=reason))
        self.finish()


class Whole:
    """A WebSocket that has a connection of its own."""

    def __init__(self, socket):
        self.socket = socket

    def message(self):
        try:
            return self.socket.recv()
        except ConnectionClosed as closed:
            if closed.rcvd is None:
                raise ConnectionResetError from closed
            return closed.rcvd.code, closed.rcvd.reason

    def ping(self):
        return self.socket.ping(b"are you there").wait(20)

    def send(self, message):
        self.socket.send(message)

    def close(self, code, reason):
        self.socket.close(code, reason)

    def abort(self):
        # A thread reads from it, so that a close would wait: to connect to nowhere
        # (AF_UNSPEC) is a reset at once.
        ctypes.CDLL(None).connect(self.socket.socket.fileno(), bytes(16), 16)


LAST = []


def obey(it, head):
    """does what the client says, and sends back what says nothing"""
    try:
        while True:
            said = it.message()
            if said == "head":
                it.send(head)
            elif said == "last":
                it.send(LAST[-1])
            elif said == "ping":
                it.send(str(it.ping()))
            elif said == "close":
                return it.close(4001, "as was said")
            elif said == "reset":
                return it.abort()
            elif isinstance(said, tuple):
                LAST.append(f"closed {said[0]} {said[1]}")
                return it.close(said[0], said[1])
            else:
                it.send(said)
    except ConnectionResetError:
        LAST.append("reset")
    except EOFError:
        LAST.append("end")


def shown(path, fields):
    named = sorted(name.lower() for name, _ in fields if not name.startswith(":"))
    return " ".join([path, *(name for name in named if "websocket" in name or name in ("upgrade", "x-own"))])


def serve_http1(port):
    def one(it):
        obey(Whole(it), shown(it.request.path, it.request.headers.raw_items()))

    with serve(one, "127.0.0.1", port, compression=None, max_size=None, ping_interval=None) as server:
        print("ready", flush=True)
        server.serve_forever()


def serve_http2(port, extended):
    listener = socket.create_server(("127.0.0.1", port))
    print("ready", flush=True)
    opened = lambda shared, number: Multiplexed(shared, number, ConnectionType.SERVER)
    while True:
        sock, _ = listener.accept()
        shared = Shared(sock, False, extended)
        threading.Thread(target=shared.serve, args=(opened,), daemon=True).start()


def open_http1(port):
    return Whole(connect(
        "ws://web.test/chat?a=b", sock=reach(port), additional_headers={"X-Own": "1"},
        compression=None, max_size=None, ping_interval=None, proxy=None,
    ))


def open_http2(port):
    it = Shared(reach(port), True).open(Multiplexed, [
        (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"),
        (":authority", "web.test"), (":path", "/chat?a=b"),
        ("sec-websocket-version", "13"), ("x-own", "1"),
    ])
    assert it.http.remote_settings.get(EXTENDED) == 1
    assert it.head[":status"] == "200", it.head
    assert not {"upgrade", "connection", "sec-websocket-accept"} & set(it.head), it.head
    return it


def expect(found, expected):
    assert found == expected, f"{found!r:.200}, not {expected!r:.200}"


def talk(open_one, port):
    it = open_one(port)
    it.send("head")
    print(it.message())
    for message in ("hello", b"\0\r\n\r\n\xff", "", BIG, "x" * 100_000):
        it.send(message)
        expect(it.message(), message)
    assert it.ping()
    it.send("ping")
    expect(it.message(), "True")
    it.send("close")
    expect(it.message(), (4001, "as was said"))

    it = open_one(port)
    it.close(4002, "enough")
    it = open_one(port)
    it.send("last")
    expect(it.message(), "closed 4002 enough")
    it.abort()

    it = open_one(port)
    while True:
        it.send("last")
        if (last := it.message()) != "closed 4002 enough":
            break
    expect(last, "reset")
    it.send("reset")
    try:
        raise AssertionError(f"{it.message()!r}, not a reset")
    except ConnectionResetError:
        pass


if sys.argv[1] == "serve":
    port = int(sys.argv[3])
    if sys.argv[2] == "http1":
        serve_http1(port)
    serve_http2(port, sys.argv[2] == "http2")
else:
    talk({"http1": open_http1, "http2": open_http2}[sys.argv[2]], int(sys.argv[3]))
