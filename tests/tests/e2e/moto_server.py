# moto as AWS: its own server, with its users and roles. What comes is written down as a
# line of JSON each, with what botocore finds wrong with its signature.
import io, json, sys

from moto.iam.access_control import create_access_key
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.datastructures import EnvironHeaders
from werkzeug.serving import make_server

from signatures import mistake

ACCOUNT = "123456789012"


class Recorder:
    def __init__(self, app, path):
        self.app = app
        self.file = open(path, "a")

    def __call__(self, environ, start_response):
        is_chunked = "HTTP_TRANSFER_ENCODING" in environ
        length = -1 if is_chunked else int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        environ["wsgi.input"] = io.BytesIO(body)
        headers = EnvironHeaders(environ)
        if "Authorization" in headers:
            self.record(environ, list(headers.items()), headers, body)
        return self.app(environ, start_response)

    def record(self, environ, fields, headers, body):
        credentials_of = lambda key: create_access_key(
            account_id=ACCOUNT, partition="aws", access_key_id=key, headers=headers
        ).create_credentials()
        try:
            what = mistake(environ["REQUEST_METHOD"], environ["RAW_URI"], fields, body, credentials_of)
        except Exception as error:
            what = repr(error)
        said = {
            "method": environ["REQUEST_METHOD"], "path": environ["RAW_URI"],
            "host": headers["Host"], "mistake": what,
            "authorization": headers["Authorization"],
            "content": headers.get("X-Amz-Content-Sha256"),
        }
        self.file.write(json.dumps(said) + "\n")
        self.file.flush()


app = Recorder(DomainDispatcherApplication(create_backend_app), sys.argv[1])
server = make_server("127.0.0.1", 0, app, threaded=True)
print(server.port, flush=True)
server.serve_forever()
