# Connects, asks once and reads to the end, from eight threads, until standard
# input ends. Says how many answers came whole, and how the others ended; a
# connect that is refused is none.
import collections, socket, sys, threading, time

host, port = sys.argv[1], int(sys.argv[2])
over = threading.Event()
ends = collections.Counter()


def one():
    try:
        client = socket.create_connection((host, port), 10)
    except ConnectionRefusedError:
        time.sleep(0.01)
        return None
    with client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n")
        answer = b""
        while some := client.recv(4096):
            answer += some
    return "whole" if b" 200 " in answer[:15] else repr(answer[:40])


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
