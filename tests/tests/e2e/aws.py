# A service of AWS that believes nobody: botocore computes each signature anew. It is
# the Security Token Service and the agent of a container as well.
import hashlib, http.server, json, re, sys, time, urllib.parse

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

SECRETS = {
    "AKIDFILE": ("file/s3cr3t+", None),
    "AKIDNEXT": ("next/s3cr3t+", "next+token="),
    "AKIDOLD": ("old/s3cr3t+", "old+token="),
    "AKIDENV": ("env/s3cr3t+", "env+token="),
    "AKIDROLE": ("role/s3cr3t+", "role+token/=="),
    "AKIDAGENT": ("agent/s3cr3t+", "agent+token="),
}
ROLE = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>AKIDROLE</AccessKeyId>
<SecretAccessKey>role/s3cr3t+</SecretAccessKey><SessionToken>role+token/==</SessionToken>
<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""
XML = "<?xml version='1.0'?>\n<Error><Code>%s</Code><Message>No.</Message></Error>"
CORAL = "com.amazon.coral.service#"
# What is said of the old keys, by path: status, further fields, body.
REFUSALS = {
    "/xml": (400, {}, XML % "ExpiredToken"),
    "/late": (403, {}, XML % "InvalidAccessKeyId"),
    "/in-pieces": (403, {}, XML % "InvalidClientTokenId"),
    "/until-close": (403, {"Connection": "close"}, XML % "ExpiredToken"),
    "/json": (400, {}, json.dumps({"__type": CORAL + "ExpiredTokenException"})),
    "/field": (403, {"x-amzn-ErrorType": "UnrecognizedClientException:"}, "{}"),
    "/denied": (403, {}, XML % "AccessDenied"),
    "/denied-field": (403, {"x-amzn-ErrorType": "AccessDeniedException"}, XML % "ExpiredToken"),
    "/far-away": (403, {}, " " * 50_000 + XML % "ExpiredToken"),
}
# How often the agent was asked, by path.
ASKED = {}
WANTED = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(\w+)/(\d{8})/([\w-]+)/([\w-]+)/aws4_request, "
    r"SignedHeaders=([\w;-]+), Signature=([0-9a-f]{64})"
)


STREAMING = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"


def mistake_of_chunks(body, lengths, seed, is_trailing, sign):
    """Reads a body in signed chunks, by the documentation of S3; `sign` signs a text."""
    previous, content, size = seed, b"", None
    while size != 0:
        head, _, body = body.partition(b"\r\n")
        size, _, shown = head.partition(b";chunk-signature=")
        size = int(size, 16)
        chunk, body = body[:size], body[size:]
        hashes = [hashlib.sha256(part).hexdigest() for part in (b"", chunk)]
        expected = sign("AWS4-HMAC-SHA256-PAYLOAD", [previous, *hashes])
        if shown.decode() != expected:
            return f"another signature of a chunk of {size} bytes: {head}"
        previous, content = expected, content + chunk
        if size and not body.startswith(b"\r\n"):
            return "no line end behind a chunk"
        body = body[2:] if size else body
    if is_trailing:
        field, line, body = body.split(b"\r\n", 2)
        hashed = hashlib.sha256(field + b"\n").hexdigest()
        expected = sign("AWS4-HMAC-SHA256-TRAILER", [previous, hashed])
        if line != b"x-amz-trailer-signature:" + expected.encode():
            return f"another signature of the trailer: {line}"
    if body != b"\r\n":
        return f"more than chunks: {body}"
    return None if lengths == [f"{len(content)}"] else f"{len(content)} bytes, not {lengths}"


def mistake(method, path, fields, body):
    named = lambda name: [value for key, value in fields if key.lower() == name]
    if len(named("authorization")) != 1 or len(named("x-amz-date")) != 1:
        return f"not one signature: {fields}"
    parts = WANTED.fullmatch(named("authorization")[0])
    if not parts:
        return f"no signature: {named('authorization')}"
    key, day, region, service, names, signature = parts.groups()
    secret, token = SECRETS[key]
    if named("x-amz-security-token") != ([token] if token else []):
        return "another token"
    date = named("x-amz-date")[0]
    if not date.startswith(day):
        return "another day"
    unsigned = [k for k, _ in fields if k.lower().startswith("x-amz-") and k.lower() not in names]
    if unsigned or "host" not in names.split(";"):
        return f"not signed: {unsigned}"
    content = named("x-amz-content-sha256")
    hashed = hashlib.sha256(body).hexdigest()
    in_chunks = content in ([STREAMING], [STREAMING + "-TRAILER"])
    if not in_chunks and content not in ([], [hashed]) and not (service == "s3" and content == ["UNSIGNED-PAYLOAD"]):
        return f"another body: {content}"
    if service == "s3" and not content:
        return "nothing said of the body"
    request = AWSRequest(method=method, url=f"http://{named('host')[0]}{path}", data=body)
    for name in names.split(";"):
        for value in named(name):
            request.headers[name] = value
    request.context["timestamp"] = date
    kind = S3SigV4Auth if service == "s3" else SigV4Auth
    auth = kind(Credentials(key, secret, token), service, region)
    canonical = auth.canonical_request(request)
    expected = auth.signature(auth.string_to_sign(request, canonical), request)
    if signature != expected:
        return f"another signature of\n{canonical}"
    if not in_chunks:
        return None

    def sign(kind, parts):
        return auth.signature("\n".join([kind, date, auth.credential_scope(request), *parts]), request)

    lengths = named("x-amz-decoded-content-length")
    return mistake_of_chunks(body, lengths, signature, content[0] != STREAMING, sign)


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        length = self.headers["Content-Length"]
        body = b""
        if length:
            body = self.rfile.read(int(length))
            if len(body) < int(length):
                self.close_connection = True
                return
        elif self.headers["Transfer-Encoding"]:
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        form = dict(urllib.parse.parse_qsl(body.decode("latin-1")))
        if form.get("Action") == "AssumeRoleWithWebIdentity":
            wanted = {
                "Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15",
                "RoleArn": "arn:aws:iam::123456789012:role/app", "RoleSessionName": "orders",
                "WebIdentityToken": "sub.ject.jwt",
            }
            status, text = (200, ROLE) if form == wanted else (400, f"{form}")
        elif self.path.startswith("/keys"):
            # A path that is longer has old keys at first.
            times = ASKED[self.path] = ASKED.get(self.path, 0) + 1
            key = "AKIDOLD" if self.path != "/keys" and times == 1 else "AKIDAGENT"
            secret, token = SECRETS[key]
            keys = {
                "AccessKeyId": key, "SecretAccessKey": secret,
                "Token": token, "Expiration": "2099-01-01T00:00:00Z",
            }
            ok = self.headers["Authorization"] == "sh0wn"
            status, text = (200, json.dumps(keys)) if ok else (403, "{}")
        else:
            what = mistake(self.command, self.path, self.headers.items(), body)
            key = self.headers["Authorization"].split("Credential=")[1].split("/")[0] if not what else ""
            text = what or f"{key} {self.headers['x-amz-content-sha256'] or ''}"
            status = 403 if what else 200
            if key == "AKIDOLD" and self.path in REFUSALS:
                return self.refuse(*REFUSALS[self.path])
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def refuse(self, status, fields, text):
        body = text.encode()
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        if self.path == "/in-pieces":
            self.send_header("Transfer-Encoding", "chunked")
        elif self.path != "/until-close":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path == "/late":
            self.wfile.flush()
            time.sleep(0.2)
        if self.path == "/in-pieces":
            for piece in (body[:30], body[30:60], body[60:]):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
            body = b"0\r\n\r\n"
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = answer

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
print(server.server_address[1], flush=True)
server.serve_forever()
