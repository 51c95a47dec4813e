//! A Workload API of the tests, on a socket in the file system: each call is
//! answered by hand.

use std::path::PathBuf;

use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use hyper::body::Bytes;
use hyper::header::HeaderMap;
use hyper::http::request::Parts;
use hyper::{Request, Response};
use prost::Message;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::message::{X509Svid, X509SvidResponse};
use crate::credential::workload_endpoint::Endpoint;
use crate::tls::test_authority::{TestAuthority, TestSvid};

/// Listens until it is dropped.
pub(super) struct TestAgent {
    _directory: TempDir,
    path: PathBuf,
    calls: mpsc::UnboundedReceiver<TestCall>,
    listener: JoinHandle<()>,
}

/// A call that waits for its answer. Dropping it ends the connection.
pub(super) struct TestCall {
    pub head: Parts,
    pub request: RecvStream,
    response: SendResponse<Bytes>,
    body: Option<SendStream<Bytes>>,
    connection: Ender,
}

struct Ender(Option<JoinHandle<()>>);

impl Drop for Ender {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl TestAgent {
    /// Must run inside a runtime.
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (sender, calls) = mpsc::unbounded_channel();
        let listener = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, sender.clone()));
            }
        });
        Self {
            _directory: directory,
            path,
            calls,
            listener,
        }
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.path.clone())
    }

    /// The next call that comes in.
    pub(super) async fn call(&mut self) -> TestCall {
        self.calls.recv().await.unwrap()
    }
}

impl Drop for TestAgent {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn serve(stream: tokio::net::UnixStream, calls: mpsc::UnboundedSender<TestCall>) {
    let Ok(mut connection) = server::handshake(stream).await else {
        return;
    };
    let Some(Ok((request, response))) = connection.accept().await else {
        return;
    };
    let (head, request) = Request::into_parts(request);
    let driver = tokio::spawn(async move { while connection.accept().await.is_some() {} });
    let call = TestCall {
        head,
        request,
        response,
        body: None,
        connection: Ender(Some(driver)),
    };
    let _ = calls.send(call);
}

impl TestCall {
    /// Sends a message.
    pub(super) fn send(&mut self, message: &impl Message) {
        let content = message.encode_to_vec();
        self.send_bytes(&[&[0][..], &(content.len() as u32).to_be_bytes(), &content].concat());
    }

    /// Sends bytes that may be no message.
    pub(super) fn send_bytes(&mut self, bytes: &[u8]) {
        let response = &mut self.response;
        let body = self.body.get_or_insert_with(|| {
            let head = Response::builder().header("content-type", "application/grpc");
            response
                .send_response(head.body(()).unwrap(), false)
                .unwrap()
        });
        body.send_data(bytes.to_vec().into(), false).unwrap();
    }

    /// Ends the call with a status; the connection stays.
    pub(super) fn end(mut self, code: u32, words: &str) {
        let mut fields = HeaderMap::new();
        fields.insert("grpc-status", code.into());
        fields.insert("grpc-message", words.parse().unwrap());
        match self.body.take() {
            Some(mut body) => body.send_trailers(fields).unwrap(),
            None => self.end_with(200, fields),
        }
        self.connection.0 = None;
    }

    /// Answers without a body.
    pub(super) fn end_with(&mut self, status: u16, fields: HeaderMap) {
        let mut head = Response::builder().status(status).body(()).unwrap();
        *head.headers_mut() = fields;
        self.response.send_response(head, true).unwrap();
    }

    /// Ends the stream without a status.
    pub(super) fn cut(mut self) {
        let body = self.body.as_mut().unwrap();
        body.send_data(Bytes::new(), true).unwrap();
        self.connection.0 = None;
    }

    pub(super) fn reset(mut self) {
        self.response.send_reset(Reason::INTERNAL_ERROR);
        self.connection.0 = None;
    }
}

/// A message with one SVID of the trust domain `td`.
pub(super) fn response(authority: &TestAuthority, id: &str, svid: &TestSvid) -> X509SvidResponse {
    X509SvidResponse {
        svids: vec![X509Svid {
            spiffe_id: id.to_owned(),
            x509_svid: svid.certificate.to_vec().into(),
            x509_svid_key: svid.key.secret_pkcs8_der().to_vec().into(),
            bundle: authority.certificate().to_vec().into(),
        }],
        crl: Vec::new(),
        federated_bundles: Default::default(),
    }
}
