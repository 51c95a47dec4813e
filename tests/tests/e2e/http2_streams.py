# One end of HTTP/2, by h2: streams that become tunnels.
import socket, threading

import h2.config, h2.connection, h2.errors, h2.events, h2.settings

EXTENDED = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL


def reach(port):
    return socket.create_connection(("127.0.0.1", port), 20)


class Shared:
    """A connection, read by a thread of its own."""

    def __init__(self, sock, is_client, extended=False):
        config = h2.config.H2Configuration(client_side=is_client, header_encoding="utf-8")
        self.sock, self.http = sock, h2.connection.H2Connection(config)
        if extended:
            self.http.local_settings = h2.settings.Settings(False, {EXTENDED: 1})
        self.streams, self.change, self.settled = {}, threading.Condition(), False
        self.http.initiate_connection()
        self.flush()

    def flush(self):
        self.sock.sendall(self.http.data_to_send())

    def serve(self, opened=None):
        while data := self.recv():
            with self.change:
                for event in self.http.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        stream = self.streams[event.stream_id] = opened(self, event.stream_id)
                        threading.Thread(target=stream.run, args=(event.headers,), daemon=True).start()
                    elif isinstance(event, h2.events.RemoteSettingsChanged):
                        self.settled = True
                    elif stream := self.streams.get(getattr(event, "stream_id", None)):
                        stream.take(event)
                self.flush()
                self.change.notify_all()

    def recv(self):
        try:
            return self.sock.recv(65536)
        except ConnectionResetError:
            return b""

    def until(self, happened):
        assert self.change.wait_for(happened, 20), "it takes too long"

    def open(self, kind, head):
        """a stream with this head, once there is an answer"""
        threading.Thread(target=self.serve, daemon=True).start()
        with self.change:
            self.until(lambda: self.settled)
            it = self.streams[1] = kind(self, 1)
            self.http.send_headers(1, head)
            self.flush()
            self.until(lambda: it.head)
        return it


class Stream:
    """A stream of bytes."""

    def __init__(self, shared, number):
        self.shared, self.http, self.number = shared, shared.http, number
        self.head, self.ended, self.reset, self.unread = None, False, None, []

    def take(self, event):
        if isinstance(event, h2.events.ResponseReceived):
            self.head = dict(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.data:
                self.unread.extend(self.parts(event.data))
        elif isinstance(event, h2.events.StreamEnded):
            self.ended = True
        elif isinstance(event, h2.events.StreamReset):
            self.reset = event.error_code

    def parts(self, data):
        return [data]

    def write(self, data):
        room = lambda: min(self.http.local_flow_control_window(self.number), 16384)
        with self.shared.change:
            while data:
                self.shared.until(lambda: self.reset is not None or room() > 0)
                if self.reset is not None:
                    raise ConnectionResetError(self.reset)
                size = room()
                self.http.send_data(self.number, data[:size])
                self.shared.flush()
                data = data[size:]

    def read(self):
        """what comes next; None: the stream ends"""
        with self.shared.change:
            self.shared.until(lambda: self.unread or self.ended or self.reset is not None)
            if self.unread:
                return self.unread.pop(0)
            if self.reset is not None:
                raise ConnectionResetError(self.reset)

    def finish(self):
        with self.shared.change:
            self.http.end_stream(self.number)
            self.shared.flush()

    def abort(self):
        with self.shared.change:
            self.http.reset_stream(self.number, h2.errors.ErrorCodes.CANCEL)
            self.shared.flush()
