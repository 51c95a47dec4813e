//! Waits for the peer to acknowledge our SETTINGS (RFC 9113 section 6.5.3): until then
//! nobody knows whether it holds to them.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use super::{Ended, State};
use crate::ring::timer::{self, Sleep};

/// How long it may take. nghttpx gives as much.
const TIME_MAX: Duration = Duration::from_secs(10);

/// The acknowledgement that a connection waits for.
pub(super) struct Acknowledgement {
    /// Until when; `None`: it has come, or will not.
    due: Option<Sleep>,
}

impl Acknowledgement {
    /// That of a new connection.
    pub(super) fn awaited() -> Self {
        Self {
            due: Some(timer::sleep(TIME_MAX)),
        }
    }

    /// Whether it has not come in time, for which the connection has ended now. All that
    /// has come was read; what waits behind a peer that reads nothing gets more time.
    pub(super) fn is_late(&mut self, state: &mut State, context: &mut Context<'_>) -> bool {
        let Some(due) = &mut self.due else {
            return false;
        };
        if state.codec.is_acknowledged() {
            self.due = None;
            return false;
        }
        while Pin::new(&mut *due).poll(context).is_ready() {
            if !state.codec.is_full() {
                self.due = None;
                let error = state.codec.settings_timeout();
                state.end(Ended::Error(error));
                return true;
            }
            *due = timer::sleep(TIME_MAX);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;

    use super::*;
    use crate::clock::virtual_time;
    use crate::http2::{ErrorCode, LocalSettings};
    use crate::multiplex::{Driven, Driver, Multiplexed};
    use crate::ring::{self, Backend, Chunk, Gather, Options};
    use crate::transport::Transport;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    const ACKNOWLEDGED: &[u8] = b"\0\0\0\x04\x01\0\0\0\0";

    /// How a connection has ended whose peer says this and waits for two minutes, when,
    /// and what its peer has heard.
    fn end_with(
        connect: fn(Transport, LocalSettings) -> Rc<Multiplexed>,
        said: &[&[u8]],
    ) -> (Ended, Duration, Vec<u8>) {
        let (said, result) = (said.concat(), Rc::new(std::cell::Cell::new(None)));
        let found = Rc::clone(&result);
        let _virtual = virtual_time::begin(1);
        let options = Options {
            backend: Backend::Epoll,
            shard: 0,
            spin: ring::Spin::Never,
        };
        let script = async move {
            let (near, far) = UnixStream::pair().unwrap();
            let near = Transport::from_connected(near.into()).unwrap();
            let far = Transport::from_connected(far.into()).unwrap();
            let began = ring::now();
            let heard = Rc::new(std::cell::RefCell::new(Vec::new()));
            let hears = Rc::clone(&heard);
            ring::spawn(async move {
                far.post(Gather::from(Chunk::from(said))).await.unwrap();
                let hearing = async {
                    while let Ok(Some(chunk)) = far.recv().await {
                        hears.borrow_mut().extend_from_slice(&chunk);
                    }
                };
                let _ = timer::timeout(Duration::from_secs(120), hearing).await;
            });
            let connection = connect(near, LocalSettings::default());
            let mut driver = Driver::of(&connection);
            let ended = loop {
                if let Driven::Ended(ended) = driver.next().await {
                    break ended;
                }
            };
            let after = ring::now() - began;
            driver.finish(Duration::from_secs(1)).await;
            found.set(Some((ended, after, heard.take())));
        };
        ring::run(options, script).unwrap();
        result.take().expect("it has ended")
    }

    #[test]
    fn s6_5_3_settings_that_nobody_acknowledges_end_the_connection() {
        let server: &[&[u8]] = &[SETTINGS];
        let client: &[&[u8]] = &[PREFACE, SETTINGS];
        let ends: [(fn(_, _) -> _, _); 2] =
            [(Multiplexed::client, server), (Multiplexed::server, client)];
        for (connect, said) in ends {
            let (ended, after, heard) = end_with(connect, said);
            let Ended::Error(error) = ended else {
                panic!("{ended:?}");
            };
            assert_eq!(error.code, ErrorCode::SETTINGS_TIMEOUT);
            assert_eq!(after.as_secs(), 10);
            let go_away = b"\x07\0\0\0\0\0\0\0\0\0\0\0\0\x04";
            assert!(heard.windows(go_away.len()).any(|part| part == go_away));

            let (ended, after, _) = end_with(connect, &[said, &[ACKNOWLEDGED]].concat());
            assert_eq!((ended, after.as_secs()), (Ended::Closed, 120));
        }
    }
}
