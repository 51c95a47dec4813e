//! A shard: one thread that owns its ring, listeners, pools and counters, and
//! serves the connections it accepted to their end.

pub(crate) mod accept;
pub(crate) mod descriptors;
pub mod place;
mod update;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::capture::Heartbeat;
use crate::clock::Instant;
use crate::proxy::context::{Context, Tokens};
use crate::proxy::generation::Generation;
use crate::proxy::memory::Memory;
use crate::ring::{self, Backend, Remote, Spin, growth, timer};
use crate::shard::accept::ListenSocket;
use crate::telemetry::access_log::Sink;
use crate::telemetry::{Failures, Snapshot, Telemetry};
use crate::upstream::dial::{Dialer, OwnAddresses};
use crate::upstream::pool::Pools;
use crate::workload::SocketStock;
use crate::workload::helper::Reliance;

pub(crate) use self::update::{LeavingNames, LogUpdate, Update, UpdateRoom};

/// How often a shard stamps its heartbeat; the kernel side takes it for hung
/// after a second without.
pub(crate) const HEARTBEAT_EVERY: Duration = Duration::from_millis(250);

/// What a shard starts with.
pub struct Plan {
    /// Its number.
    pub shard: u16,
    /// The CPU it is bound to; `None` leaves it to the scheduler.
    pub cpu: Option<usize>,
    /// What carries its I/O.
    pub backend: Backend,
    /// Whether it spins.
    pub spin: Spin,
    /// The configuration.
    pub generation: Arc<Generation>,
    /// Its listening sockets and what they are for.
    pub listen_sockets: Vec<ListenSocket>,
    /// What it must not dial.
    pub own: OwnAddresses,
    /// The memory of the process.
    pub memory: Arc<Memory>,
    /// Makes upstream sockets in the namespaces of workloads.
    pub namespaces: Vec<SocketStock>,
    /// How many shards there are.
    pub shards: usize,
    /// Its end of the access log.
    pub log: Option<Sink>,
    /// Tells the programs that it lives, where something is captured, as long
    /// as what that relies on holds.
    pub heartbeat: Option<(Heartbeat, Arc<Reliance>)>,
    /// Whose a captured connection may be.
    pub tokens: Tokens,
    /// Who waits for what the drain cuts.
    pub callers: Callers,
}

/// A running shard.
pub struct Shard {
    /// Runs closures on it.
    pub remote: Remote,
    thread: JoinHandle<io::Result<Snapshot>>,
}

/// Whether callers still wait for what a drain cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callers {
    /// They may still run.
    Remain,
    /// They have ended before the drain began, as the command of `exec` has.
    Ended,
}

/// Starts the shards of a process and introduces them to each other.
pub fn start(plans: Vec<Plan>) -> io::Result<Vec<Shard>> {
    let starting: Vec<(Receiver<Remote>, JoinHandle<io::Result<Snapshot>>)> = plans
        .into_iter()
        .map(|plan| {
            let (ready, started) = sync_channel(1);
            let thread = std::thread::Builder::new()
                .name(format!("shard-{}", plan.shard))
                .spawn(move || run(plan, ready))?;
            Ok((started, thread))
        })
        .collect::<io::Result<_>>()?;
    let mut shards = Vec::with_capacity(starting.len());
    for (started, thread) in starting {
        match started.recv() {
            Ok(remote) => shards.push(Shard { remote, thread }),
            // It ended before it was ready: its result says why.
            Err(_) => return Err(join(thread).err().unwrap_or_else(ended_early)),
        }
    }
    for (at, shard) in shards.iter().enumerate() {
        let peers: Vec<Remote> = shards
            .iter()
            .enumerate()
            .filter(|(peer, _)| *peer != at)
            .map(|(_, peer)| peer.remote.clone())
            .collect();
        shard.tell(move |context| context.set_peers(peers));
    }
    Ok(shards)
}

impl Shard {
    /// Runs `tell` with the shard's context, between two turns of its loop.
    pub fn tell(&self, tell: impl FnOnce(&Rc<Context>) + Send + 'static) {
        tell_to(&self.remote, tell);
    }

    /// Takes no new connections, closes what is idle for longer than `grace`,
    /// and lets the rest finish until `deadline`.
    pub fn drain(&self, deadline: Instant, grace: Duration) {
        self.tell(move |context| context.begin_drain(deadline, grace));
    }

    /// Whether its thread has ended.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end; gives what it has counted, to the last request.
    pub fn join(self) -> io::Result<Snapshot> {
        join(self.thread)
    }
}

/// Runs `tell` with the context of the shard behind `remote`.
pub(crate) fn tell_to(remote: &Remote, tell: impl FnOnce(&Rc<Context>) + Send + 'static) {
    let sent = remote.send(Box::new(move || {
        if let Some(context) = Context::current() {
            tell(&context);
        }
    }));
    if sent.is_err() {
        tracing::warn!("a shard takes no messages: its mailbox is full or it has ended");
    }
}

fn run(plan: Plan, ready: SyncSender<Remote>) -> io::Result<Snapshot> {
    if let Some(cpu) = plan.cpu {
        place::pin_to(cpu);
    }
    let options = ring::Options {
        backend: plan.backend,
        shard: plan.shard,
        spin: plan.spin,
    };
    let telemetry = ring::run(options, serve(plan, ready))??;
    // Only now, so that what the drain has cut is counted too.
    Ok(telemetry.cells.snapshot())
}

async fn serve(plan: Plan, ready: SyncSender<Remote>) -> io::Result<Rc<Telemetry>> {
    let pools = Pools::new(plan.shard, Rc::new(Dialer::new(plan.own, plan.namespaces)));
    let failures = Failures::of_shards(plan.shards);
    let telemetry = Rc::new(Telemetry::new(plan.log).keeping(failures));
    let (counted, memory) = (Rc::clone(&telemetry), plan.memory);
    let context = Context::new(plan.shard, plan.generation, pools, counted, memory);
    context.tokens.set(plan.tokens);
    ring::spawn(watch_memory(Rc::clone(&context)));
    if let Some((heartbeat, reliance)) = plan.heartbeat {
        heartbeat.beat();
        ring::spawn(beat(heartbeat, reliance, Rc::clone(&context)));
    }
    for listen_socket in plan.listen_sockets {
        accept::spawn(&context, listen_socket)?;
    }
    // The other end waits for exactly this.
    let _ = ready.send(ring::remote());
    context.drain.begun().await;
    let deadline = context.drain_deadline();
    let left = deadline.saturating_duration_since(ring::now());
    if timer::timeout(left, context.served.begun()).await.is_err() {
        let (shard, connections) = (context.shard, context.connections.get());
        match plan.callers {
            Callers::Remain => tracing::warn!(
                shard,
                connections,
                "drain_timeout has passed; remaining connections are cut"
            ),
            Callers::Ended => tracing::debug!(
                shard,
                connections,
                "connections without a waiting caller are cut"
            ),
        }
    }
    Ok(telemetry)
}

async fn beat(heartbeat: Heartbeat, reliance: Arc<Reliance>, context: Rc<Context>) {
    while timer::timeout(HEARTBEAT_EVERY, context.drain.begun())
        .await
        .is_err()
    {
        match reliance.holds() {
            true => heartbeat.beat(),
            false => heartbeat.stop(),
        }
    }
    // Before its listeners close, so that nobody is sent to them any more. What
    // is in flight may still have to dial.
    loop {
        heartbeat.stop();
        timer::sleep(HEARTBEAT_EVERY).await;
    }
}

/// Looks when connections have come to hold much more.
async fn watch_memory(context: Rc<Context>) {
    loop {
        growth::much_has_grown().await;
        context.look_at_memory();
    }
}

fn join(thread: JoinHandle<io::Result<Snapshot>>) -> io::Result<Snapshot> {
    thread.join().unwrap_or_else(|_| Err(ended_early()))
}

fn ended_early() -> io::Error {
    io::Error::other("a shard ended before its time")
}
