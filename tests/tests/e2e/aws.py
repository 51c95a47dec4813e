# A service of AWS that believes nobody: botocore computes each signature anew. It is
# the Security Token Service and the agent of a container as well.
import http.server, json, time, urllib.parse

from botocore.credentials import Credentials

from signatures import mistake

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
def credentials_of(key):
    return Credentials(key, *SECRETS[key])


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
            what = mistake(self.command, self.path, self.headers.items(), body, credentials_of)
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
