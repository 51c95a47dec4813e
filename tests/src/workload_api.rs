//! A SPIFFE Workload API of the tests, and the authorities whose SVIDs it gives
//! out.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use h2::RecvStream;
use h2::server::{self, SendResponse};
use hyper::body::Bytes;
use hyper::header::HeaderMap;
use hyper::{Request, Response};
use prost::Message;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::ClientConfig;
use serde_json::json;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{oneshot, watch};

use crate::pki::{self, Leaf};

/// The signing authority of a trust domain.
pub struct TrustDomain {
    name: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate of a workload and its key.
pub struct Svid {
    /// The whole id.
    pub id: String,
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl TrustDomain {
    /// One whose certificate is valid for long.
    pub fn new(name: &str) -> TrustDomain {
        TrustDomain::issuing(name, name)
    }

    /// One that makes ids of another domain.
    pub fn issuing(name: &str, issued: &str) -> TrustDomain {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri(&format!("spiffe://{name}"))];
        let key = KeyPair::generate().expect("the library makes keys");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("the parameters are right");
        TrustDomain {
            name: issued.to_owned(),
            issuer,
        }
    }

    /// The certificate of the authority in PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// An SVID of the workload with this path, and a serial number of its own.
    pub fn svid(&self, path: &str, serial: u64, lifetime: Duration) -> Svid {
        self.svid_with(path, serial, lifetime, |_| {})
    }

    /// One that is as `change` makes it.
    pub fn svid_with(
        &self,
        path: &str,
        serial: u64,
        lifetime: Duration,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Svid {
        let id = format!("spiffe://{}{path}", self.name);
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("it is a name");
        params.serial_number = Some(SerialNumber::from(serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.subject_alt_names.push(uri(&id));
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_secs(60)).into();
        params.not_after = (now + lifetime).into();
        change(&mut params);
        let key = KeyPair::generate().expect("the library makes keys");
        let certificate = params.signed_by(&key, &self.issuer);
        Svid {
            id,
            certificate: certificate.expect("the parameters are right"),
            key,
        }
    }

    /// A client that trusts it, and shows an SVID or none.
    pub fn client(&self, shown: Option<&Svid>) -> ClientConfig {
        self.client_with(shown.map(Svid::leaf).as_ref())
    }

    /// The same, which shows another certificate.
    pub fn client_with(&self, shown: Option<&Leaf>) -> ClientConfig {
        pki::client(&self.pem(), rustls::ALL_VERSIONS, shown)
    }

    /// A list of revoked certificates, in DER.
    fn revoked(&self, serials: &[u64]) -> Vec<u8> {
        let now = SystemTime::now();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + Duration::from_secs(3_600)).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer);
        list.expect("the authority signs lists").der().to_vec()
    }
}

impl Svid {
    /// Both.
    pub fn leaf(&self) -> Leaf {
        Leaf {
            pem: self.certificate_pem(),
            key: self.key_pem(),
        }
    }

    /// The certificate in PEM.
    pub fn certificate_pem(&self) -> String {
        self.certificate.pem()
    }

    /// The key in PEM.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

/// A URI among the names of a certificate.
pub fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("it is ASCII"))
}

/// What an agent says of a workload.
#[derive(Clone, PartialEq, Message)]
pub struct Update {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<SvidMessage>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    crl: Vec<Vec<u8>>,
    #[prost(btree_map = "string, bytes", tag = "3")]
    federated_bundles: std::collections::BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct SvidMessage {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    x509_svid: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    x509_svid_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    bundle: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct JwtRequest {
    #[prost(string, repeated, tag = "1")]
    audience: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct JwtResponse {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<JwtMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct JwtMessage {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(string, tag = "2")]
    svid: String,
}

impl Update {
    /// That the workload has this SVID and believes its own trust domain.
    pub fn of(svid: &Svid, domain: &TrustDomain) -> Update {
        Update {
            svids: vec![SvidMessage {
                spiffe_id: svid.id.clone(),
                x509_svid: svid.certificate.der().to_vec(),
                x509_svid_key: svid.key.serialize_der(),
                bundle: domain.issuer.der().to_vec(),
            }],
            ..Update::default()
        }
    }

    /// That it believes another trust domain too.
    pub fn federated(mut self, domain: &TrustDomain) -> Update {
        let bundle = domain.issuer.der().to_vec();
        let id = format!("spiffe://{}", domain.name);
        self.federated_bundles.insert(id, bundle);
        self
    }

    /// That its authority has revoked certificates.
    pub fn revoking(mut self, domain: &TrustDomain, serials: &[u64]) -> Update {
        self.crl.push(domain.revoked(serials));
        self
    }
}

/// What calls are answered with.
#[derive(Clone)]
enum Answer {
    /// Messages, as they are made.
    Updates(Arc<Update>),
    /// PermissionDenied.
    Refusal,
    /// The end of the connection.
    Hangup,
}

/// An agent that listens on a socket until it is dropped.
pub struct WorkloadApi {
    path: PathBuf,
    answer: watch::Sender<Answer>,
    calls: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl WorkloadApi {
    /// Listens in a directory, on a socket that everybody may connect to.
    pub fn start(directory: &Path, update: Update) -> WorkloadApi {
        let path = directory.join("agent.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("the path is free");
        listener.set_nonblocking(true).expect("it is a socket");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("it is ours");
        let (answer, answers) = watch::channel(Answer::Updates(Arc::new(update)));
        let (stop, stopped) = oneshot::channel::<()>();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("there are descriptors left");
            runtime.block_on(async {
                let listener = UnixListener::from_std(listener).expect("the runtime runs");
                let serve = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(serve(stream, answers.clone(), Arc::clone(&counted)));
                    }
                };
                tokio::select! {
                    () = serve => {}
                    _ = stopped => {}
                }
            });
        });
        WorkloadApi {
            path,
            answer,
            calls,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// The address for the configuration.
    pub fn endpoint(&self) -> String {
        format!("unix:{}", self.path.display())
    }

    /// Sends this to everybody, and to who comes later.
    pub fn publish(&self, update: Update) {
        self.answer.send_replace(Answer::Updates(Arc::new(update)));
    }

    /// Ends all calls, and has an identity for nobody.
    pub fn refuse(&self) {
        self.answer.send_replace(Answer::Refusal);
    }

    /// Ends all connections, and those that come later.
    pub fn hang_up(&self) {
        self.answer.send_replace(Answer::Hangup);
    }

    /// Calls so far.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Drop for WorkloadApi {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.path);
    }
}

async fn serve(stream: UnixStream, answers: watch::Receiver<Answer>, calls: Arc<AtomicUsize>) {
    let Ok(mut connection) = server::handshake(stream).await else {
        return;
    };
    let Some(Ok((request, response))) = connection.accept().await else {
        return;
    };
    assert_eq!(request.headers()["workload.spiffe.io"], "true");
    if request.uri().path() == "/SpiffeWorkloadAPI/FetchJWTSVID" {
        tokio::select! {
            () = async { while connection.accept().await.is_some() {} } => {}
            () = token(request, response, answers) => {}
        }
        return;
    }
    assert_eq!(request.uri().path(), "/SpiffeWorkloadAPI/FetchX509SVID");
    calls.fetch_add(1, Ordering::Relaxed);
    // The connection ends with the answer, or the other way round.
    tokio::select! {
        () = async { while connection.accept().await.is_some() {} } => {}
        () = answer(response, answers) => {}
    }
}

/// Gives a JWT-SVID of the workload, for whoever is asked for.
async fn token(
    request: Request<RecvStream>,
    mut response: SendResponse<Bytes>,
    answers: watch::Receiver<Answer>,
) {
    let Answer::Updates(update) = answers.borrow().clone() else {
        return;
    };
    let Some(Ok(frame)) = request.into_body().data().await else {
        return;
    };
    let wanted = JwtRequest::decode(&frame[5..]).expect("a message");
    let id = update.svids[0].spiffe_id.clone();
    let end = SystemTime::now() + Duration::from_secs(60);
    let end = end
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("it is later");
    let claims = json!({ "sub": id, "aud": wanted.audience, "exp": end.as_secs() });
    let [head, claims] =
        [json!({ "alg": "ES256" }), claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let given = JwtResponse {
        svids: vec![JwtMessage {
            spiffe_id: id,
            svid: format!("{head}.{claims}.c2ln"),
        }],
    };
    let head = Response::builder().header("content-type", "application/grpc");
    let head = head.body(()).expect("it is a head");
    let Ok(mut body) = response.send_response(head, false) else {
        return;
    };
    let mut fields = HeaderMap::new();
    fields.insert("grpc-status", 0.into());
    let _ = body.send_data(framed(&given), false);
    let _ = body.send_trailers(fields);
    // The client leaves when it has read this.
    std::future::pending().await
}

fn framed(message: &impl Message) -> Bytes {
    let content = message.encode_to_vec();
    let length = (content.len() as u32).to_be_bytes();
    [&[0][..], &length, &content].concat().into()
}

async fn answer(mut response: SendResponse<Bytes>, mut answers: watch::Receiver<Answer>) {
    let mut body = None;
    loop {
        let next = answers.borrow_and_update().clone();
        match next {
            Answer::Updates(update) => {
                let body = body.get_or_insert_with(|| {
                    let head = Response::builder().header("content-type", "application/grpc");
                    let head = head.body(()).expect("it is a head");
                    response.send_response(head, false)
                });
                let Ok(body) = body else { return };
                if body.send_data(framed(&*update), false).is_err() {
                    return;
                }
            }
            Answer::Refusal => {
                let mut fields = HeaderMap::new();
                fields.insert("grpc-status", 7.into());
                let _ = match body {
                    Some(Ok(mut body)) => body.send_trailers(fields),
                    _ => {
                        let mut head = Response::new(());
                        *head.headers_mut() = fields;
                        response.send_response(head, true).map(drop)
                    }
                };
                // The client leaves when it has read this.
                return std::future::pending().await;
            }
            Answer::Hangup => return,
        }
        if answers.changed().await.is_err() {
            return;
        }
    }
}
