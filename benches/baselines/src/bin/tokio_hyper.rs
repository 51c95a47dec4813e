//! HTTP/1 forwarding in the plain way: tokio on one thread, hyper's server, and
//! the pooled client of hyper-util. Bodies are streamed.

use std::io;

use ambassador_baselines::{Start, start};
use hyper::Request;
use hyper::body::Incoming;
use hyper::http::uri::{Authority, Scheme, Uri};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let Start { listener, to } = start()?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let authority = Authority::try_from(to.to_string()).map_err(io::Error::other)?;
    let client = pooled_client();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (client, authority) = (client.clone(), authority.clone());
        let forward = service_fn(move |request| client.request(readdress(request, &authority)));
        tokio::spawn(async move {
            let served = http1::Builder::new().serve_connection(TokioIo::new(stream), forward);
            // A connection that fails is closed by its drop.
            let _ = served.await;
        });
    }
}

fn pooled_client() -> Client<HttpConnector, Incoming> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(connector)
}

/// The client goes where the target says, so it gets the endpoint's authority;
/// `Host` stays as it is.
fn readdress(mut request: Request<Incoming>, authority: &Authority) -> Request<Incoming> {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority.clone());
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    request
}
