//! moto as AWS: programs use S3, SQS and DynamoDB with boto3 and curl, through a proxy
//! that has the keys. botocore computes each signature anew.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use ambassador_tests::program::{self, Running};
use ambassador_tests::proxy::{Launch, Scratch};
use ambassador_tests::{Backend, Proxy, eventually, on_both_backends};
use serde_json::Value;

use crate::credentials::{listen, replace, secret};

on_both_backends!(
    programs_use_the_keys_of_a_user_and_have_none,
    programs_use_a_role_for_a_web_identity,
);

const SOON: Duration = Duration::from_secs(30);
const PACKAGES: &str =
    "moto[s3]==5.2.1 boto3==1.43.11 botocore==1.43.11 flask==3.1.1 flask-cors==6.0.1";
/// What moto says to three requests that it finds well signed, and badly.
const GOOD: &str = "ok ok ok";
const BAD: &str = "SignatureDoesNotMatch 403 403";

/// moto, with a user and a role who may do everything.
struct Moto {
    address: SocketAddr,
    scratch: Scratch,
    account: Value,
    _running: Running,
}

impl Moto {
    #[track_caller]
    fn start() -> Moto {
        let scratch = Scratch::new();
        let mut running = Running::start(
            program::script(PACKAGES, "moto_server.py")
                .arg(scratch.path().join("requests"))
                .stdout(Stdio::piped())
                .stderr(Stdio::null()),
        );
        let mut lines = BufReader::new(running.stdout()).lines();
        let port = lines.next().expect("a port").expect("readable");
        let port: u16 = port.parse().expect("a number");
        let mut moto = Moto {
            address: ([127, 0, 0, 1], port).into(),
            scratch,
            account: Value::Null,
            _running: running,
        };
        let said = moto.client(&["prepare", &moto.url()]);
        moto.account = serde_json::from_str(&said).expect("json.dumps writes JSON");
        moto
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What a program says that uses boto3.
    #[track_caller]
    fn client(&self, words: &[&str]) -> String {
        let mut client = program::script(PACKAGES, "moto_client.py");
        let said = program::succeed(client.args(words));
        said.trim().to_owned()
    }

    /// What moto says to requests of a program from now on, where it lets in those alone
    /// that it finds well signed.
    #[track_caller]
    fn judges(&self, listen: SocketAddr, bucket: &str) -> String {
        self.client(&["judge", &listen.to_string(), bucket, &self.url()])
    }

    fn of_account(&self, name: &str) -> &str {
        self.account[name].as_str().expect("it is text")
    }

    /// A proxy for the names of AWS, with keys from there.
    fn config(&self, listen: SocketAddr, credentials: &str) -> String {
        let upstreams: String = ["s3", "sqs", "dynamodb"]
            .map(|service| {
                let host = format!("{service}.eu-west-1.amazonaws.com");
                let endpoint = self.address;
                format!(
                    "  {service}:\n    hosts: [{host}, \"*.{host}\"]\n    endpoints: \
                     [\"{endpoint}\"]\n    auth: {{ sigv4: {{ service: {service}, region: \
                     eu-west-1, credentials: {credentials} }} }}\n"
                )
            })
            .concat();
        format!("listeners: [{{ name: out, bind: \"{listen}\" }}]\nupstreams:\n{upstreams}")
    }

    /// Each request of a program that has come: what it was, and what is wrong with it.
    fn requests(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.scratch.path().join("requests")).unwrap_or_default();
        let lines = text.lines().map(serde_json::from_str::<Value>);
        let requests = lines.map(|line| line.expect("json.dumps writes JSON"));
        let is_of_program = |it: &Value| {
            let host = it["host"].as_str().unwrap_or_default();
            host.ends_with(".amazonaws.com")
        };
        requests.filter(is_of_program).collect()
    }

    /// All have the signature that botocore computes, with this key.
    #[track_caller]
    fn assert_signed(&self, key: &str) {
        let requests = self.requests();
        assert!(requests.len() > 40, "{requests:?}");
        for request in &requests {
            assert_eq!(request["mistake"], Value::Null, "{request}");
            let authorization = request["authorization"].to_string();
            assert!(
                authorization.contains(&format!("Credential={key}")),
                "{request}"
            );
        }
    }
}

/// A file as AWS' own tools keep them.
fn keys(id: &str, secret: &str) -> String {
    format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n")
}

fn programs_use_the_keys_of_a_user_and_have_none(backend: Backend) {
    let moto = Moto::start();
    let (id, known) = (moto.of_account("id"), moto.of_account("secret"));
    let file = secret(&moto.scratch, "credentials", &keys(id, known));
    let listen = listen();
    let config = moto.config(listen, &format!("{{ file: \"{}\" }}", file.display()));
    let proxy = Proxy::start(backend, &config);
    moto.client(&["use", &listen.to_string(), "virtual"]);
    // Paths that boto3 would change. botocore signs a path as it is written.
    for path in [
        "/a/./b",
        "/a/../b/%C3%BC~",
        "/a//%20%2B//",
        "/a?x=%2F&X=&x=a%20b&%C3%BC=",
    ] {
        let mut curl = Command::new("curl");
        curl.args(["-sSf", "-m20", "--path-as-is", "-T", "-", "-x"])
            .args([&listen.to_string(), "-H", "x-amz-meta-note:  two   blanks "])
            .arg(format!("http://virtual.s3.eu-west-1.amazonaws.com{path}"));
        program::succeed(&mut curl);
        let last = moto.requests().pop().expect("it came");
        let content = last["content"].as_str();
        assert_eq!(
            (last["path"].as_str(), content),
            (Some(path), Some("UNSIGNED-PAYLOAD"))
        );
    }
    moto.assert_signed(id);
    assert_eq!(moto.judges(listen, "virtual"), GOOD);
    assert!(!proxy.log().contains(known));

    replace(&file, &keys(id, &"x".repeat(known.len())));
    eventually("moto refuses another secret", SOON, || {
        moto.judges(listen, "virtual") == BAD
    });
    let last = moto.requests().pop().expect("it came");
    assert_ne!(last["mistake"], Value::Null);
}

fn programs_use_a_role_for_a_web_identity(backend: Backend) {
    let moto = Moto::start();
    let subject = moto.scratch.file("subject", "sub.ject.jwt\n");
    let environment = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", subject.display().to_string()),
        ("AWS_ROLE_ARN", moto.of_account("role").to_owned()),
        ("AWS_ROLE_SESSION_NAME", "orders".to_owned()),
        ("AWS_ENDPOINT_URL_STS", moto.url()),
    ];
    let launch = Launch {
        environment: environment
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        ..Launch::default()
    };
    let listen = listen();
    let proxy = Proxy::launch(backend, &moto.config(listen, "web_identity"), launch);
    moto.client(&["use", &listen.to_string(), "path"]);
    // Keys that end begin so.
    moto.assert_signed("ASIA");
    assert_eq!(moto.judges(listen, "path"), GOOD);
    for service in ["s3", "sqs", "dynamodb"] {
        let labels = [("upstream", service)];
        let left = proxy.metric("ambassador_credential_expiry_seconds", &labels);
        assert!((3_000.0..=3_600.0).contains(&left), "{service}: {left}");
    }
}
