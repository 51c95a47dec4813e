//! Connections that have to come, and answers that have to come over them.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use ambassador_tests::Client;

/// Nothing that has to come takes longer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The next connection.
pub fn accept(listener: &TcpListener) -> Result<Client, String> {
    listener
        .set_nonblocking(true)
        .map_err(|it| it.to_string())?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).map_err(|it| it.to_string())?;
                return Ok(Client::over(stream));
            }
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error.to_string()),
            Err(_) if Instant::now() > deadline => return Err("no connection comes".to_owned()),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Has a connection wait no longer.
pub fn patient(client: Client) -> Client {
    let set = client.stream().set_read_timeout(Some(PATIENCE));
    set.expect("a valid duration");
    client
}
