//! Connections to a Workload API.

use std::io;

use tokio::net::{TcpStream, UnixStream};

use super::super::grpc::Connection;
use crate::credential::workload_endpoint::Endpoint;

impl Endpoint {
    pub(super) async fn connect(&self) -> io::Result<Box<dyn Connection>> {
        Ok(match self {
            Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Self::Tcp(address) => Box::new(TcpStream::connect(address).await?),
        })
    }
}
