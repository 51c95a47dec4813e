# Connects, asks once and reads to the end, from eight threads, until standard
# input ends. Says how many answers came whole, and how the others ended; a
# connect that is refused is none.
import collections, socket, struct, sys, threading, time

host, port, protocol = sys.argv[1], int(sys.argv[2]), sys.argv[3]
over = threading.Event()
ends = collections.Counter()


def http1(client):
    client.sendall(b"GET / HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n")
    answer = b""
    while some := client.recv(4096):
        answer += some
    return "whole" if b" 200 " in answer[:15] else repr(answer[:40])


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def http2(client):
    fields = b"\x82\x84\x86\x41\x08web.test"
    client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + frame(1, 5, 1, fields))
    source, came, is_ok = client.makefile("rb"), [], False
    while len(head := source.read(9)) == 9:
        length, flags, stream = struct.unpack(">IBI", head)
        length, kind = length >> 8, length & 0xFF
        payload = source.read(length)
        came.append(kind)
        if stream == 1 and kind == 1:
            is_ok = payload[:1] == b"\x88"
        if stream == 1 and kind in (0, 1) and flags & 1:
            return "whole" if is_ok else repr(payload[:40])
    return f"ended behind {came}"


def one():
    try:
        client = socket.create_connection((host, port), 10)
    except ConnectionRefusedError:
        time.sleep(0.01)
        return None
    with client:
        return {"http1": http1, "http2": http2}[protocol](client)


def many():
    while not over.is_set():
        try:
            end = one()
        except OSError as error:
            end = type(error).__name__
        if end:
            ends[end] += 1


threads = [threading.Thread(target=many) for _ in range(8)]
for thread in threads:
    thread.start()
sys.stdin.read()
over.set()
for thread in threads:
    thread.join()
print(ends.pop("whole", 0), dict(ends))
