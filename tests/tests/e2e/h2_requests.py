"""Many requests over one connection of the library h2, whose windows are small and whose
settings change: `h2_requests.py HOST:PORT`. Says `ok` and how many were answered."""

import socket
import sys

import h2.config
import h2.connection
import h2.events
import h2.settings

host, port = sys.argv[1].rsplit(":", 1)
STREAMS, LENGTH, PIECE = 20, 30_000, 1_000
Codes = h2.settings.SettingCodes

stream = socket.create_connection((host, int(port)), timeout=20)
connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
# Before the preface: answers come a kilobyte at a time.
connection.local_settings[Codes.INITIAL_WINDOW_SIZE] = 1_000
connection.local_settings.acknowledge()
connection.initiate_connection()
stream.sendall(connection.data_to_send())

left, content, trailers, given_up = {}, {}, {}, set()
for number in range(STREAMS):
    opened = connection.get_next_available_stream_id()
    connection.send_headers(
        opened,
        [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "web.test"),
            (":path", "/echo"),
            ("x-number", str(number)),
            ("x-of-all", "the same value, which is worth a place in the table"),
        ],
        priority_weight=1 + number,
        priority_depends_on=0,
    )
    left[opened] = bytes([65 + number]) * LENGTH
    content[opened] = b""


def upload():
    """A piece of each body in turn, as far as the windows go."""
    for number, rest in list(left.items()):
        room = min(PIECE, connection.local_flow_control_window(number), len(rest))
        if rest and room <= 0:
            continue
        connection.send_data(number, rest[:room], pad_length=room % 7)
        left[number] = rest[room:]
        if not left[number]:
            del left[number]
            # Half of them end with trailers.
            if number % 4 == 1:
                connection.send_headers(number, [("x-sum", str(number))], end_stream=True)
            else:
                connection.end_stream(number)


rounds, pings, ended = 0, 0, set()
while len(ended) < STREAMS - len(given_up):
    upload()
    rounds += 1
    if rounds == 3:
        connection.ping(b"12345678")
        connection.update_settings({Codes.HEADER_TABLE_SIZE: 0, Codes.INITIAL_WINDOW_SIZE: 3_000})
    if rounds == 5:
        # Two of them are of no interest any more.
        for number in [9, 11]:
            if number not in ended:
                connection.reset_stream(number, 8)
                given_up.add(number)
                left.pop(number, None)
    stream.sendall(connection.data_to_send())
    if left and any(connection.local_flow_control_window(number) > 0 for number in left):
        stream.settimeout(0.001)
    else:
        stream.settimeout(20)
    try:
        received = stream.recv(65536)
    except socket.timeout:
        continue
    if not received:
        sys.exit("the connection was closed")
    for event in connection.receive_data(received):
        number = getattr(event, "stream_id", None)
        if isinstance(event, h2.events.DataReceived):
            if number not in given_up:
                content[number] += event.data
                connection.acknowledge_received_data(event.flow_controlled_length, number)
            else:
                connection.increment_flow_control_window(event.flow_controlled_length)
        elif isinstance(event, h2.events.ResponseReceived):
            status = dict(event.headers)[b":status"]
            assert status == b"200", status
        elif isinstance(event, h2.events.StreamEnded):
            ended.add(number)
        elif isinstance(event, h2.events.PingAckReceived):
            pings += 1
        elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
            sys.exit(f"ended: {event}")
for number in ended:
    assert content[number] == bytes([65 + (number - 1) // 2]) * LENGTH, (number, len(content[number]))
assert pings == 1, pings
connection.close_connection()
stream.sendall(connection.data_to_send())
print("ok", len(ended) + len(given_up))
