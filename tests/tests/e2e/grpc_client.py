"""Makes a gRPC call without generated code, and prints what came of it as JSON: the
address, the call, and more where the call takes it."""

import json
import sys
import threading

import grpc

address, call, words = sys.argv[1], sys.argv[2], sys.argv[3:]
channel = grpc.insecure_channel(
    address,
    options=[
        ("grpc.max_receive_message_length", 16 << 20),
        # Whoever is asked again is asked by the proxy.
        ("grpc.enable_retries", 0),
        ("grpc.default_authority", "web.test"),
    ],
)


def method(kind, name):
    return getattr(channel, kind)("/test.Peer/" + name)


def ended(call):
    """What it came to, once it has."""
    return {
        "code": call.code().name,
        "details": call.details(),
        "initial": [list(pair) for pair in call.initial_metadata() if isinstance(pair[1], str)],
        "trailing": [[key, value if isinstance(value, str) else value.hex()] for key, value in call.trailing_metadata()],
    }


def unary(name, request, **options):
    try:
        answer, finished = method("unary_unary", name).with_call(request, **options)
        return ended(finished) | {"length": len(answer), "text": answer[:100].decode("latin-1")}
    except grpc.RpcError as error:
        return ended(error)


def stream(answers):
    got = []
    try:
        for answer in answers:
            got.append(answer.decode())
    except grpc.RpcError:
        pass
    return ended(answers) | {"got": got}


def cancelled():
    """Is under way when it is given up."""
    answers = method("unary_stream", "Endless")(b"")
    next(answers)
    answers.cancel()
    return {"code": answers.code().name}


def taken_in_turns():
    """Each message waits for the answer to the one before."""
    turn = threading.Semaphore(0)

    def requests():
        for word in ["one", "two", "three"]:
            yield word.encode()
            turn.acquire()

    answers = method("stream_stream", "Both")(requests())
    got = []
    for answer in answers:
        got.append(answer.decode())
        turn.release()
    return ended(answers) | {"got": got}


def many(count):
    """As many at a time over one connection."""
    call = method("unary_unary", "Echo")
    waiting = [call.future(b"x" * number) for number in range(count)]
    lengths = [len(one.result()) for one in waiting]
    return {"right": lengths == list(range(count))}


CALLS = {
    "echo": lambda text, *fields: unary(
        "Echo", text.encode(), metadata=[tuple(field.split("=")) for field in fields]
    ),
    "big": lambda length: unary("Echo", b"x" * int(length)),
    "fail": lambda code: unary("Fail", code.encode()),
    "flaky": lambda *words: unary("Flaky", ":".join(words).encode()),
    "deadline": lambda seconds: unary("Silent", b"", timeout=float(seconds)),
    "silent": lambda: unary("Silent", b""),
    "count": lambda number: stream(method("unary_stream", "Count")(number.encode())),
    "late": lambda: stream(method("unary_stream", "LateFailure")(b"")),
    "cancel": cancelled,
    "total": lambda count: unary_of(int(count)),
    "both": taken_in_turns,
    "many": lambda count: many(int(count)),
    "unknown": lambda: unary("NoSuchCall", b""),
}


def unary_of(count):
    answer, finished = method("stream_unary", "Total").with_call(b"x" * 1000 for _ in range(count))
    return ended(finished) | {"text": answer.decode()}


print(json.dumps(CALLS[call](*words)))
channel.close()
