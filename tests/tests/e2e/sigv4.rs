//! Signatures of AWS, checked by a server that has botocore compute each anew.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use ambassador_tests::nginx::Front;
use ambassador_tests::program::{self, Running};
use ambassador_tests::proxy::{Launch, Scratch, one_upstream};
use ambassador_tests::{
    Backend, Call, Client, Column, Proxy, eventually, matrix, on_both_backends,
};

use crate::credentials::{listen, replace, secret};

matrix!(
    requests_are_signed_as_the_service_wants_it,
    a_body_that_comes_later_is_signed_too,
    signatures_in_a_body_are_replaced,
    a_body_that_is_not_in_signed_chunks_is_refused,
);

on_both_backends!(
    keys_come_from_where_tools_of_aws_look,
    keys_that_change_are_taken,
);

const SOON: Duration = Duration::from_secs(30);
const KEYS: &str =
    "[default]\naws_access_key_id = AKIDFILE\naws_secret_access_key = file/s3cr3t+\n";
const UNSIGNED: &str = "AKIDFILE UNSIGNED-PAYLOAD";

/// Services of AWS.
pub(crate) struct Aws {
    pub(crate) address: SocketAddr,
    _running: Running,
}

impl Aws {
    pub(crate) fn serving() -> Aws {
        let mut running =
            Running::start(program::script("botocore==1.43.11", "aws.py").stdout(Stdio::piped()));
        let mut lines = BufReader::new(running.stdout()).lines();
        let port = lines.next().expect("a port").expect("readable");
        let port: u16 = port.parse().expect("a number");
        Aws {
            address: ([127, 0, 0, 1], port).into(),
            _running: running,
        }
    }

    /// Where it is reached in what the upstream of a column speaks.
    pub(crate) fn front(&self, column: Column) -> Front {
        Front::of(self.address, column.upstream)
    }
}

pub(crate) fn sigv4(service: &str, credentials: &str) -> String {
    format!(
        "auth: {{ sigv4: {{ service: {service}, region: eu-west-1, credentials: {credentials} }} }}\n\
         headers: {{ set: {{ authorization: by-a-rule, x-amz-meta-team: shop }} }}\n"
    )
}

/// What programs send that have keys of no worth.
const OWN: &str = "Authorization: AWS4-HMAC-SHA256 Credential=x/20200101/a/b/aws4_request, \
                   SignedHeaders=host, Signature=0\r\nX-Amz-Date: 20200101T000000Z\r\n\
                   X-Amz-Security-Token: mine\r\n";

fn requests_are_signed_as_the_service_wants_it(column: Column) {
    let aws = Aws::serving();
    let front = aws.front(column);
    let scratch = Scratch::new();
    let file = secret(&scratch, "credentials", KEYS);
    let file = format!("{{ file: \"{}\" }}", file.display());
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let hello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    for (service, of_none, of_hello) in [
        (
            "s3",
            format!("AKIDFILE {empty}"),
            format!("AKIDFILE {hello}"),
        ),
        ("dynamodb", "AKIDFILE ".to_owned(), "AKIDFILE ".to_owned()),
    ] {
        let (_proxy, listen) =
            Proxy::in_front_of_with(column, front.address, &sigv4(service, &file));
        let mut caller = column.connect(listen);
        for path in [
            "/",
            "/a//b/../c%20d/%C3%BC%2B~?list-type=2&prefix=a%2Fb&acl",
            "/?b=2&a=1&a=0&empty=&%E1%88%B4=x",
        ] {
            let call = Call::get(path).to("web.test").lines(OWN);
            let call = call.lines("X-Amz-Target: A.B\r\nx-amz-meta-x:  a   b \r\n");
            let answer = caller.call(&call);
            assert_eq!(
                (answer.status, answer.text()),
                (200, of_none.clone()),
                "{path}"
            );
        }
        for method in ["PUT", "POST"] {
            let call = Call::new(method, "/key")
                .to("web.test")
                .lines(OWN)
                .body("hello");
            let answer = caller.call(&call.field("content-type", "text/plain"));
            assert_eq!(
                (answer.status, answer.text()),
                (200, of_hello.clone()),
                "{method}"
            );
        }
        // A hash that the program has made is right whoever signs.
        let call = Call::post("/", "hello").to("web.test").lines(OWN);
        let answer = caller.call(&call.field("x-amz-content-sha256", hello));
        assert_eq!(
            (answer.status, answer.text()),
            (200, format!("AKIDFILE {hello}"))
        );
    }
}

fn a_body_that_comes_later_is_signed_too(column: Column) {
    let aws = Aws::serving();
    let front = aws.front(column);
    let scratch = Scratch::new();
    let file = secret(&scratch, "credentials", KEYS);
    let file = format!("{{ file: \"{}\" }}", file.display());
    for (service, said) in [("s3", UNSIGNED), ("sqs", "AKIDFILE ")] {
        let (_proxy, listen) =
            Proxy::in_front_of_with(column, front.address, &sigv4(service, &file));
        let mut caller = column.connect(listen);
        let body = "x".repeat(50_000);
        caller.send(
            &Call::new("PUT", "/key")
                .to("web.test")
                .announces(body.len()),
        );
        for piece in body.as_bytes().chunks(9_000) {
            caller.piece(piece);
        }
        let answer = caller.answer();
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, said),
            "{service}"
        );
    }
    // Signatures of another kind cannot be replaced.
    let (_proxy, listen) = Proxy::in_front_of_with(column, front.address, &sigv4("s3", &file));
    let call = Call::post("/", "5;chunk-signature=0\r\nhello\r\n").to("web.test");
    let call = call.field(
        "x-amz-content-sha256",
        "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD",
    );
    assert_eq!(
        column.connect(listen).call(&call).reason(),
        "auth-unavailable"
    );
    // A body over the limit is for S3 alone.
    for (service, status) in [("s3", 200), ("sqs", 503)] {
        let more = format!("{}retry: {{ body_limit: 1KiB }}\n", sigv4(service, &file));
        let (_proxy, listen) = Proxy::in_front_of_with(column, front.address, &more);
        let long = "x".repeat(100_000);
        let answer = column
            .connect(listen)
            .call(&Call::post("/", long).to("web.test"));
        assert_eq!(answer.status, status, "{service}: {}", answer.text());
        if status == 503 {
            assert_eq!(answer.reason(), "auth-unavailable");
        }
    }
}

pub(crate) const CHUNKS: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
const WITH_TRAILER: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER";
/// A signature that is worth nothing.
const NOBODYS: &str = "00000000000000000000000000000000000000000000000000000000deadbeef";

/// A body in chunks of these sizes, as a program with keys of no worth signs it.
pub(crate) fn in_chunks(sizes: &[usize], said: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for size in sizes {
        body.extend(format!("{size:x};chunk-signature={NOBODYS}\r\n").bytes());
        body.extend((0..*size).map(|at| (at % 251) as u8));
        body.extend(b"\r\n");
    }
    body.extend(format!("0;chunk-signature={NOBODYS}\r\n").bytes());
    if said == WITH_TRAILER {
        body.extend(b"x-amz-checksum-crc32c:sOO8/Q==\r\n");
        body.extend(format!("x-amz-trailer-signature:{NOBODYS}\r\n").bytes());
    }
    body.extend(b"\r\n");
    body
}

pub(crate) fn upload(path: &str, sizes: &[usize], said: &str) -> Call {
    let length: usize = sizes.iter().sum();
    Call::new("PUT", path)
        .to("web.test")
        .lines(OWN)
        .field("content-encoding", "aws-chunked")
        .field("x-amz-content-sha256", said)
        .field("x-amz-decoded-content-length", &length.to_string())
}

/// However long the chunks are, and however the body comes.
fn signatures_in_a_body_are_replaced(column: Column) {
    let aws = Aws::serving();
    let front = aws.front(column);
    let scratch = Scratch::new();
    let file = secret(&scratch, "credentials", KEYS);
    let file = format!("{{ file: \"{}\" }}", file.display());
    let (_proxy, listen) = Proxy::in_front_of_with(column, front.address, &sigv4("s3", &file));
    let mut caller = column.connect(listen);
    for said in [CHUNKS, WITH_TRAILER] {
        let expected = (200, format!("AKIDFILE {said}"));
        for sizes in [
            &[][..],
            &[5],
            &[65_536, 1_024],
            &[8_192; 40],
            &[1 << 20, 1 << 20, 7],
        ] {
            let body = in_chunks(sizes, said);
            let answer = caller.call(&upload("/key", sizes, said).body(&body));
            assert_eq!((answer.status, answer.text()), expected, "{sizes:?}");
            for piece in [1_000, 70_001] {
                caller.send(&upload("/key", sizes, said).in_pieces());
                for piece in body.chunks(piece) {
                    caller.piece(piece);
                }
                caller.end(&[]);
                let answer = caller.answer();
                assert_eq!((answer.status, answer.text()), expected, "{sizes:?}");
            }
        }
    }
}

fn a_body_that_is_not_in_signed_chunks_is_refused(column: Column) {
    let aws = Aws::serving();
    let front = aws.front(column);
    let scratch = Scratch::new();
    let file = secret(&scratch, "credentials", KEYS);
    let file = format!("{{ file: \"{}\" }}", file.display());
    let (_proxy, listen) = Proxy::in_front_of_with(column, front.address, &sigv4("s3", &file));
    let large = in_chunks(&[(1 << 20) + 1], CHUNKS);
    let mut late = in_chunks(&[70_000, 70_000], CHUNKS);
    let middle = late.len() / 2;
    late.truncate(middle);
    for (body, status) in [
        (&b""[..], 400),
        (b"hello", 400),
        (b"5\r\nhello\r\n0\r\n\r\n", 400),
        (&in_chunks(&[5], CHUNKS)[..50], 400),
        (&late, 400),
        (&large, 413),
    ] {
        let answer = column
            .connect(listen)
            .call(&upload("/key", &[5], CHUNKS).body(body));
        assert_eq!(
            (answer.status, answer.reason()),
            (status, "bad-request"),
            "{} bytes",
            body.len()
        );
    }
    let answer = column
        .connect(listen)
        .call(&upload("/key", &[5], CHUNKS).body(in_chunks(&[5], CHUNKS)));
    assert_eq!(answer.status, 200);
}

fn keys_come_from_where_tools_of_aws_look(backend: Backend) {
    let aws = Aws::serving();
    let scratch = Scratch::new();
    let subject = scratch.file("subject", "sub.ject.jwt\n");
    let shown = scratch.file("shown", "sh0wn\n");
    let (subject, shown) = (subject.display().to_string(), shown.display().to_string());
    let sts = format!("http://{}/", aws.address);
    let agent = format!("http://{}/keys", aws.address);
    type Environment<'a> = &'a [(&'a str, &'a str)];
    let cases: [(&str, &str, Environment<'_>); 3] = [
        (
            "env",
            "AKIDENV ",
            &[
                ("AWS_ACCESS_KEY_ID", "AKIDENV"),
                ("AWS_SECRET_ACCESS_KEY", "env/s3cr3t+"),
                ("AWS_SESSION_TOKEN", "env+token="),
            ],
        ),
        (
            "web_identity",
            "AKIDROLE ",
            &[
                ("AWS_WEB_IDENTITY_TOKEN_FILE", &subject),
                ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/app"),
                ("AWS_ROLE_SESSION_NAME", "orders"),
                ("AWS_ENDPOINT_URL_STS", &sts),
            ],
        ),
        (
            "container",
            "AKIDAGENT ",
            &[
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &shown),
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &agent),
            ],
        ),
    ];
    for (word, said, environment) in cases {
        let listen = listen();
        let config = one_upstream(listen, aws.address, &sigv4("sqs", word));
        let without = Proxy::start(backend, &config);
        let answer = Client::connect(listen).get("/");
        assert_eq!(
            (answer.status, answer.reason()),
            (503, "auth-unavailable"),
            "{word}"
        );
        drop(without);
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let launch = Launch {
            environment: environment.iter().map(own).collect(),
            ..Launch::default()
        };
        let proxy = Proxy::launch(backend, &config, launch);
        let answer = Client::connect(listen).get("/");
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, said),
            "{word}"
        );
        for told in [
            proxy.log(),
            proxy.admin_get("/config"),
            proxy.admin_get("/upstreams"),
        ] {
            assert!(
                !told.contains("s3cr3t") && !told.contains("+token"),
                "{told}"
            );
        }
    }
}

fn keys_that_change_are_taken(backend: Backend) {
    let aws = Aws::serving();
    let scratch = Scratch::new();
    let file = secret(&scratch, "credentials", KEYS);
    let more = sigv4("sqs", &format!("{{ file: \"{}\" }}", file.display()));
    let (proxy, listen) = Proxy::in_front_of_with(backend, aws.address, &more);
    let mut caller = Client::connect(listen);
    assert_eq!(caller.get("/").text(), "AKIDFILE ");
    replace(&file, "[other]\n");
    let failed = [("upstream", "web"), ("outcome", "failed")];
    eventually("it is refused", SOON, || {
        proxy.metric("ambassador_credential_refreshes_total", &failed) >= 1.0
    });
    let why = proxy.upstream("web")["credential"]["last_failure"].to_string();
    assert!(why.contains("has no section [default]"), "{why}");
    assert_eq!(caller.get("/").text(), "AKIDFILE ");
    replace(
        &file,
        "[default]\naws_access_key_id=AKIDNEXT\naws_secret_access_key=next/s3cr3t+\n\
         aws_session_token=next+token=\n",
    );
    eventually("the new keys sign", SOON, || {
        caller.get("/").text() == "AKIDNEXT "
    });
}
