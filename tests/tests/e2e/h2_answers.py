"""A server of the library h2 whose windows are small. What it does is in the path of a
request. Prints its port."""

import socket
import threading

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

Codes = h2.settings.SettingCodes
refused, seen = set(), threading.Lock()
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)


class Served:
    def __init__(self, stream):
        self.stream = stream
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.connection.initiate_connection()
        # Until they are acknowledged, windows have 65,535 octets; then less than nothing.
        self.connection.update_settings(
            {Codes.INITIAL_WINDOW_SIZE: 500, Codes.MAX_CONCURRENT_STREAMS: 2}
        )
        self.paths, self.content, self.left = {}, {}, {}

    def head(self, number, *fields, status="200", end=False):
        self.connection.send_headers(number, [(":status", status), *fields], end_stream=end)

    def answer(self, number, body, *fields, trailers=None):
        self.head(number, *fields)
        self.left[number] = (body, trailers)

    def send(self):
        """As much of each body as the windows let go."""
        for number, (rest, trailers) in list(self.left.items()):
            while rest:
                room = min(
                    self.connection.local_flow_control_window(number),
                    self.connection.max_outbound_frame_size,
                    len(rest),
                )
                if room <= 0:
                    break
                self.connection.send_data(number, rest[:room])
                rest = rest[room:]
            self.left[number] = (rest, trailers)
            if not rest:
                del self.left[number]
                if trailers:
                    self.connection.send_headers(number, trailers, end_stream=True)
                else:
                    self.connection.end_stream(number)

    def credit(self, length, number):
        """At once: the library waits for more, which a smaller window may not let come."""
        if length:
            self.connection.increment_flow_control_window(length)
            try:
                self.connection.increment_flow_control_window(length, number)
            except h2.exceptions.StreamClosedError:
                # It is whole, or was reset.
                pass

    def begun(self, number, fields):
        path = dict(fields)[b":path"].decode()
        self.paths[number], self.content[number] = path, b""
        if path == "/early":
            # Answered whole, and the rest of the request is of no interest (8.1).
            self.head(number, ("content-length", "0"), end=True)
            self.connection.reset_stream(number, 0)
        elif path == "/interim":
            self.head(number, ("link", "</a>"), status="103")
        elif path.startswith("/refused"):
            with seen:
                first = path not in refused
                refused.add(path)
            if first:
                self.connection.reset_stream(number, 7)
                self.paths[number] = ""

    def whole(self, number):
        path = self.paths[number]
        body = self.content[number]
        if path == "/echo":
            self.answer(number, body)
        elif path == "/large":
            self.answer(number, b"x" * 1_000_000)
        elif path == "/trailers":
            self.answer(number, b"ok", trailers=[("x-sum", "9")])
        elif path == "/cookies":
            # Twice the same name: both have to come.
            self.answer(number, b"ok", ("set-cookie", "a=1"), ("x-b", "2"), ("set-cookie", "c=3"))
        elif path.startswith("/goaway"):
            with seen:
                first = path not in refused
                refused.add(path)
            if first:
                # Not processed: neither this one nor any after it.
                self.connection.close_connection(0, last_stream_id=number - 2 if number > 1 else 0)
                return False
            self.answer(number, b"ok")
        elif path.startswith("/") and path != "/early":
            self.answer(number, b"ok")
        return True

    def serve(self):
        going = True
        while going:
            self.send()
            self.stream.sendall(self.connection.data_to_send())
            received = self.stream.recv(65536)
            if not received:
                return
            for event in self.connection.receive_data(received):
                number = getattr(event, "stream_id", None)
                if isinstance(event, h2.events.RequestReceived):
                    self.begun(number, event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    self.content[number] += event.data
                    self.credit(event.flow_controlled_length, number)
                elif isinstance(event, h2.events.StreamEnded):
                    going = self.whole(number) and going
                elif isinstance(event, h2.events.StreamReset):
                    self.left.pop(number, None)
        self.stream.sendall(self.connection.data_to_send())


def serve(stream):
    try:
        Served(stream).serve()
    except (OSError, h2.exceptions.ProtocolError) as error:
        print(error, flush=True)
    finally:
        stream.close()


while True:
    accepted, _ = listener.accept()
    threading.Thread(target=serve, args=(accepted,), daemon=True).start()
