"""A gRPC server without generated code. Prints its port; for each call a line of what it
was and how it ended goes to the file that is its argument."""

import json
import sys
import threading
import time
from concurrent import futures

import grpc

log = open(sys.argv[1], "w", buffering=1)
lock = threading.Lock()
failures = {}


def note(**what):
    with lock:
        log.write(json.dumps(what) + "\n")


def remaining(context):
    """Seconds to the caller's deadline, or none."""
    left = context.time_remaining()
    return left if left is not None and left < 1e6 else None


def echo(request, context):
    fields = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
    note(call="echo", length=len(request), fields=fields, left=remaining(context))
    context.send_initial_metadata((("x-initial", "yes"),))
    context.set_trailing_metadata((("x-trailing", "yes"), ("x-trailing-bin", b"\0\1")))
    return request


def fail(request, context):
    """Ends with the status that is asked for, before any message."""
    note(call="fail")
    context.abort(grpc.StatusCode[request.decode()], "as asked: 100 %")


def flaky(request, context):
    """Is unavailable as often as it is told, for each name, and may say when to ask again."""
    name, times, *pushback = request.decode().split(":")
    with lock:
        failures[name] = failures.get(name, 0) + 1
        again = failures[name] <= int(times)
    note(call="flaky", name=name)
    if again:
        context.set_trailing_metadata([("grpc-retry-pushback-ms", wait) for wait in pushback])
        context.abort(grpc.StatusCode.UNAVAILABLE, "try again")
    return str(failures[name]).encode()


def silent(request, context):
    """Answers when its caller has left."""
    left = threading.Event()
    context.add_callback(left.set)
    note(call="silent", left=remaining(context))
    left.wait(60)
    note(call="silent", ended=True)
    return b""


def count(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def late_failure(request, context):
    yield b"first"
    context.abort(grpc.StatusCode.DATA_LOSS, "after a message")


def endless(request, context):
    note(call="endless")
    # Nobody may ask for another message of a call that has ended.
    context.add_callback(lambda: note(call="endless", ended=True))
    number = 0
    while context.is_active():
        yield str(number).encode()
        number += 1
        time.sleep(0.001)


def total(requests, context):
    return str(sum(len(request) for request in requests)).encode()


def both(requests, context):
    for request in requests:
        yield request.upper()


UNARY = {"Echo": echo, "Fail": fail, "Flaky": flaky, "Silent": silent}
STREAM = {"Count": count, "LateFailure": late_failure, "Endless": endless}
handlers = {name: grpc.unary_unary_rpc_method_handler(call) for name, call in UNARY.items()}
handlers |= {name: grpc.unary_stream_rpc_method_handler(call) for name, call in STREAM.items()}
handlers["Total"] = grpc.stream_unary_rpc_method_handler(total)
handlers["Both"] = grpc.stream_stream_rpc_method_handler(both)

server = grpc.server(
    futures.ThreadPoolExecutor(32),
    options=[("grpc.max_receive_message_length", 16 << 20), ("grpc.so_reuseport", 0)],
)
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Peer", handlers)])
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
