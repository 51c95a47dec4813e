//! Whether io_uring can do what is needed of it.

use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use io_uring::types::Fd;
use io_uring::{cqueue, opcode};

use super::super::buffers::Buffers;
use super::super::chunk::{Chunk, Gather};
use super::super::mailbox;
use super::super::send_op::SendOp;
use super::{BUFFER_GROUP, Uring, send_entry};

/// Whether a ring with everything that is used here works in this process.
pub(in crate::ring) fn probe() -> io::Result<()> {
    let buffers = Rc::new(Buffers::provided()?);
    let mailbox = mailbox::Mailbox::new()?;
    let result = Uring::new(&buffers, mailbox.event()).and_then(|mut ring| {
        ring.try_receive()?;
        ring.try_quiet_sends()
    });
    mailbox.close();
    result
}

impl Uring {
    /// Receives one byte in the way that streams do.
    fn try_receive(&mut self) -> io::Result<()> {
        use std::io::Write;
        let (mut near, far) = std::os::unix::net::UnixStream::pair()?;
        near.write_all(b"x")?;
        let receive = opcode::RecvMulti::new(Fd(far.as_raw_fd()), BUFFER_GROUP).build();
        self.push(receive.user_data(0));
        drop(near);
        // A byte, then the end of the stream.
        let (mut bytes, mut over) = (0, false);
        while !over {
            self.ring.submit_and_wait(1)?;
            for completion in self.ring.completion() {
                if completion.result() < 0 {
                    return Err(io::Error::from_raw_os_error(-completion.result()));
                }
                bytes += completion.result();
                over = !cqueue::more(completion.flags());
            }
        }
        match bytes {
            1 => Ok(()),
            _ => Err(io::Error::other("a multishot receive lost a byte")),
        }
    }

    /// Sends in the way of posts: what is taken whole is not told of, what is
    /// taken in part is.
    fn try_quiet_sends(&mut self) -> io::Result<()> {
        let (near, _far) = std::os::unix::net::UnixStream::pair()?;
        let mut op = SendOp::boxed();
        op.quiet = true;
        op.gather = Gather::from(Chunk::from(vec![0; 4 * 1024 * 1024]));
        self.push(send_entry(Fd(near.as_raw_fd()), &mut op).user_data(1));
        let (near, _far) = std::os::unix::net::UnixStream::pair()?;
        let mut little = SendOp::boxed();
        little.quiet = true;
        little.gather = Gather::from(Chunk::from(vec![0]));
        self.push(send_entry(Fd(near.as_raw_fd()), &mut little).user_data(2));
        self.push(opcode::Nop::new().build().user_data(3));
        self.ring.submit_and_wait(2)?;
        let told: Vec<(u64, i32)> = self
            .ring
            .completion()
            .map(|completion| (completion.user_data(), completion.result()))
            .collect();
        match told[..] {
            [(1, part), (3, _)] if part > 0 && (part as usize) < op.gather.bytes() => Ok(()),
            _ => Err(io::Error::other(format!(
                "quiet sends are not told of as they should: {told:?}"
            ))),
        }
    }
}
