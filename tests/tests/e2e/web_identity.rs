//! Keys of AWS that are got for a token of the workload. The Security Token Service is
//! over TLS; a service checks the signatures with botocore.

use std::path::Path;
use std::time::Duration;

use ambassador_tests::proxy::{Launch, Scratch, one_upstream};
use ambassador_tests::server::response;
use ambassador_tests::workload_api::{TrustDomain, Update, WorkloadApi};
use ambassador_tests::{
    Authority, Backend, Client, Proxy, Request, Server, eventually, on_both_backends,
};
use serde_json::json;

use crate::credentials::{listen, replace, secret};
use crate::jwt_svid::claims;
use crate::sigv4::Aws;

on_both_backends!(
    keys_are_got_for_the_token_of_a_file,
    keys_are_got_for_the_token_of_a_pod,
    keys_are_got_for_a_jwt_svid,
    a_refusal_is_told_without_the_token,
);

const SOON: Duration = Duration::from_secs(30);
const ROLE: &str = "arn:aws:iam::123456789012:role/app";
const KEYS: &str = "<AssumeRoleWithWebIdentityResponse \
     xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleWithWebIdentityResult>\
     <Credentials><AccessKeyId>AKIDROLE</AccessKeyId>\
     <SecretAccessKey>role/s3cr3t+</SecretAccessKey><SessionToken>role+token/==</SessionToken>\
     <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>\
     </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";

/// A Security Token Service, and the authority behind its certificate.
struct Sts {
    server: Server,
    scratch: Scratch,
}

impl Sts {
    fn answering(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Sts {
        let scratch = Scratch::new();
        let authority = Authority::new("sts");
        scratch.file("ca.pem", &authority.pem);
        let leaf = authority.issue(&["localhost"]);
        let server = Server::secured(leaf.server(), move |connection| {
            connection.serve_http(&answer)
        });
        Sts { server, scratch }
    }

    fn serving() -> Sts {
        Sts::answering(|_| response("200 OK", "Content-Type: text/xml\r\n", KEYS))
    }

    /// `auth` with keys for this subject.
    fn auth(&self, subject: &str) -> String {
        format!(
            "auth: {{ token_exchange: {{ grant: aws_web_identity, url: \"https://localhost:{}/\", \
             subject: {subject}, role: \"{ROLE}\", session: orders, service: sqs, \
             region: eu-west-1, tls: {{ ca: \"{}\" }} }} }}\n",
            self.server.address().port(),
            self.scratch.path().join("ca.pem").display()
        )
    }

    /// The token that it was shown, beside what belongs to it.
    #[track_caller]
    fn shown(&self) -> String {
        let form = String::from_utf8(self.server.last_request().body).expect("a form");
        let (rest, token) = form.split_once("&WebIdentityToken=").expect("a token");
        assert_eq!(
            rest,
            "Action=AssumeRoleWithWebIdentity&Version=2011-06-15\
             &RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fapp&RoleSessionName=orders"
        );
        token.to_owned()
    }
}

fn of_file(path: &Path) -> String {
    format!("{{ file: \"{}\" }}", path.display())
}

/// What the service says of a request through the proxy that it could verify.
const SIGNED: &str = "AKIDROLE ";

fn keys_are_got_for_the_token_of_a_file(backend: Backend) {
    let (aws, sts, scratch) = (Aws::serving(), Sts::serving(), Scratch::new());
    let subject = secret(&scratch, "subject", "sub.ject.jwt\n");
    let auth = sts.auth(&of_file(&subject));
    let (proxy, listen) = Proxy::in_front_of_with(backend, aws.address, &auth);
    assert_eq!(Client::connect(listen).get("/?b=1&a=2").text(), SIGNED);
    assert_eq!(sts.shown(), "sub.ject.jwt");
    replace(&subject, "sub.ject.next\n");
    eventually("the next token is shown", SOON, || {
        sts.shown() == "sub.ject.next"
    });
    assert_eq!(Client::connect(listen).get("/").text(), SIGNED);
    let upstream = proxy.upstream("web");
    assert_eq!(upstream["credential"]["kind"], "token_exchange");
    let config = proxy.admin_get("/config");
    assert!(
        config.contains("aws_web_identity") && config.contains(ROLE),
        "{config}"
    );
    for told in [proxy.log(), config, proxy.admin_get("/upstreams")] {
        for secret in ["s3cr3t", "role+token", "sub.ject"] {
            assert!(!told.contains(secret), "{told}");
        }
    }
}

/// The file of a service account is where Kubernetes has it.
fn keys_are_got_for_the_token_of_a_pod(backend: Backend) {
    let (aws, sts, scratch) = (Aws::serving(), Sts::serving(), Scratch::new());
    let token = scratch.file("token", "po.d.jwt");
    let listen = listen();
    let config = one_upstream(listen, aws.address, &sts.auth("kubernetes"));
    let account = "/run/secrets/kubernetes.io/serviceaccount";
    let script = format!(
        "mount -t tmpfs none /run && mkdir -p {account} && cp {} {account}/token && \
         exec \"$0\" \"$@\"",
        token.display()
    );
    let wrapper = ["unshare", "--mount", "sh", "-c", &script];
    let launch = Launch {
        wrapper: wrapper.map(str::to_owned).into(),
        ..Launch::default()
    };
    let _proxy = Proxy::launch(backend, &config, launch);
    assert_eq!(Client::connect(listen).get("/").text(), SIGNED);
    assert_eq!(sts.shown(), "po.d.jwt");
}

fn keys_are_got_for_a_jwt_svid(backend: Backend) {
    let (aws, scratch, td) = (Aws::serving(), Scratch::new(), TrustDomain::new("td"));
    let update = Update::of(&td.svid("/orders", 2, Duration::from_secs(3_600)), &td);
    let agent = WorkloadApi::start(scratch.path(), update);
    for (more, audience) in [("", "sts.amazonaws.com"), (", audience: other", "other")] {
        let sts = Sts::serving();
        let listen = listen();
        let auth = sts.auth(&format!("spiffe{more}"));
        let config = format!(
            "identity: {{ spiffe: \"{}\" }}\n{}",
            agent.endpoint(),
            one_upstream(listen, aws.address, &auth)
        );
        let _proxy = Proxy::start(backend, &config);
        eventually("there are keys", SOON, || {
            Client::connect(listen).get("/").text() == SIGNED
        });
        let claims = claims(&sts.shown());
        assert_eq!(claims["sub"], "spiffe://td/orders");
        assert_eq!(claims["aud"], json!([audience]));
    }
}

fn a_refusal_is_told_without_the_token(backend: Backend) {
    let (aws, scratch) = (Aws::serving(), Scratch::new());
    let sts = Sts::answering(|_| {
        let error = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>\
                     <Message>Not authorized</Message></Error></ErrorResponse>";
        response("403 Forbidden", "Content-Type: text/xml\r\n", error)
    });
    let subject = secret(&scratch, "subject", "sub.ject.jwt\n");
    let auth = sts.auth(&of_file(&subject));
    let (proxy, listen) = Proxy::in_front_of_with(backend, aws.address, &auth);
    let answer = Client::connect(listen).get("/");
    assert_eq!((answer.status, answer.reason()), (503, "auth-unavailable"));
    let why = proxy.upstream("web")["credential"]["last_failure"].to_string();
    assert!(
        why.contains("answers 403: AccessDenied: Not authorized"),
        "{why}"
    );
    assert!(!proxy.log().contains("sub.ject"), "{}", proxy.log());
}
