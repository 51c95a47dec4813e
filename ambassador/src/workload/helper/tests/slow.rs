//! A helper that is slow, hangs, or ends: whoever takes sockets is not kept.

use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use super::message::{Answer, Question, Reply};
use super::*;
use crate::clock::Instant;
use crate::workload::{Kind, Supply, sockets};

const SOON: Duration = Duration::from_secs(10);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Takes a socket, however long that takes.
pub(super) fn take_in_the_end(stock: &SocketStock) -> io::Result<OwnedFd> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut taking = pin!(stock.take(Family::V4));
    loop {
        match taking.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(taken) => return taken,
            Poll::Pending => std::thread::park_timeout(SOON),
        }
    }
}

/// Takes one as far as it goes without waiting.
fn take_now(stock: &SocketStock) -> Poll<io::Result<OwnedFd>> {
    let taking = pin!(stock.take(Family::V4));
    taking.poll(&mut Context::from_waker(Waker::noop()))
}

/// Answers each question with sockets, as long as `gate` lets it.
fn serve_through(gate: Receiver<()>, theirs: OwnedFd) {
    while let Ok(Some((text, _))) = descriptors::receive(theirs.as_fd()) {
        let question: Question = serde_json::from_slice(&text).unwrap();
        if gate.recv().is_err() {
            return;
        }
        let Request::Sockets(spec) = question.request else {
            panic!("only sockets are asked for");
        };
        let made = sockets::make(&spec).unwrap();
        let fds: Vec<BorrowedFd<'_>> = made.iter().map(AsFd::as_fd).collect();
        let answer = Answer {
            number: Some(question.number),
            reply: Reply::Done,
        };
        // The other end may be gone.
        let _ = descriptors::send(theirs.as_fd(), &serde_json::to_vec(&answer).unwrap(), &fds);
    }
}

#[track_caller]
fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_helper_that_hangs_is_noticed_and_keeps_nobody() {
    let (ours, theirs) = descriptors::pair().unwrap();
    let (open, gate) = channel();
    let served = std::thread::spawn(move || serve_through(gate, theirs));
    let helper = Arc::new(Helper::over(ours, None));
    let reliance = Reliance::on(&helper);
    let supply = Arc::new(Supply::new(&helper).unwrap());
    supply.start().unwrap();
    // Two families and the socket that tells of owners.
    (0..3).for_each(|_| open.send(()).unwrap());
    let stock = SocketStock::remote(&supply, &Netns::own().unwrap(), None).unwrap();

    // What is in stock is taken; the next one is waited for.
    let mut taken = 0;
    while let Poll::Ready(socket) = take_now(&stock) {
        socket.unwrap();
        taken += 1;
    }
    assert!(taken >= 8, "{taken}");
    reliance.set_needed(true);
    assert!(reliance.holds(), "nobody can know yet");
    let error = take_in_the_end(&stock).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
    assert_eq!(helper.life(), Life::Silent);
    assert!(!reliance.holds());
    reliance.set_needed(false);
    assert!(reliance.holds(), "who needs no such socket can be served");
    reliance.set_needed(true);

    // It goes on: with what was asked meanwhile, and with what is asked now.
    for _ in 0..100 {
        let _ = open.send(());
    }
    soon("it answers again", || helper.life() == Life::Answers);
    soon("there are sockets", || {
        matches!(take_now(&stock), Poll::Ready(Ok(_)))
    });
    assert!(reliance.holds());

    // It ends.
    drop(open);
    soon("its end is noticed", || {
        let _ = take_now(&stock);
        helper.life() == Life::Ended
    });
    served.join().unwrap();
    soon(
        "those who come are told",
        || matches!(take_now(&stock), Poll::Ready(Err(error)) if error.raw_os_error() == Some(libc::EPIPE)),
    );
    assert!(!reliance.holds());
}

/// As a name service in another namespace does.
#[test]
fn one_that_hangs_over_a_name_is_noticed_by_who_dials() {
    let (ours, theirs) = descriptors::pair().unwrap();
    let helper = Arc::new(Helper::over(ours, None));
    let supply = Arc::new(Supply::new(&helper).unwrap());
    supply.start().unwrap();
    let netns = Netns::own().unwrap();
    let spec = SocketSpec {
        family: Family::V4,
        kind: Kind::Datagram,
        count: 1,
        mark: None,
    };
    std::thread::scope(|scope| {
        let (open, gate) = channel();
        let served = scope.spawn(|| serve_through(gate, theirs));
        (0..3).for_each(|_| open.send(()).unwrap());
        let stock = SocketStock::remote(&supply, &netns, None).unwrap();
        while take_now(&stock).is_ready() {}
        let began = Instant::now();
        let asked = scope.spawn(|| helper.sockets(&netns, &spec));
        let error = take_in_the_end(&stock).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
        let error = asked.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() < SOON);
        drop(open);
        served.join().unwrap();
    });
}

#[test]
fn what_died_with_its_question_is_asked_again_once() {
    let (ours, theirs) = descriptors::pair().unwrap();
    let helper = Helper::over(ours, None);
    let answer = |reply: Reply| {
        let (text, _) = descriptors::receive(theirs.as_fd()).unwrap().unwrap();
        let question: Question = serde_json::from_slice(&text).unwrap();
        let number = Some(question.number);
        let text = serde_json::to_vec(&Answer { number, reply }).unwrap();
        descriptors::send(theirs.as_fd(), &text, &[]).unwrap();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            answer(Reply::Restarted);
            answer(Reply::Done);
        });
        assert!(helper.end_loader().is_ok());
        // It is what they die of.
        scope.spawn(|| (0..2).for_each(|_| answer(Reply::Restarted)));
        let error = helper.end_loader().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        // A signal that comes twice is another thing than one.
        scope.spawn(|| answer(Reply::Restarted));
        let error = helper.signal(1, libc::SIGTERM).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    });
    assert_eq!(helper.life(), Life::Answers);
}

#[test]
fn many_who_wait_at_once_are_all_served() {
    let (helper, served) = on_a_thread();
    let helper = Arc::new(helper);
    let supply = Arc::new(Supply::new(&helper).unwrap());
    supply.start().unwrap();
    let stock = SocketStock::remote(&supply, &Netns::own().unwrap(), None).unwrap();
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut waiting: Vec<_> = (0..300).map(|_| Box::pin(stock.take(Family::V4))).collect();
    let until = Instant::now() + SOON;
    while !waiting.is_empty() {
        assert!(Instant::now() < until, "{} wait", waiting.len());
        waiting.retain_mut(|taking| match taking.as_mut().poll(&mut context) {
            Poll::Ready(Ok(_)) => false,
            // A machine that is busy may have kept the helper from answering in
            // time: that caller asks again.
            Poll::Ready(Err(_)) => {
                *taking = Box::pin(stock.take(Family::V4));
                true
            }
            Poll::Pending => true,
        });
        std::thread::park_timeout(Duration::from_millis(100));
    }
    drop(waiting);
    drop((stock, supply, helper));
    served.join().unwrap().unwrap();
}
