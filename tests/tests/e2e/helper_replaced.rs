//! A process of the privileged helper dies: another one takes its place, nobody
//! who needs it notices, and what was set up is undone at the end all the same.

use std::time::{Duration, Instant};

use ambassador_tests::proxy::Launch;
use ambassador_tests::{Backend, Cgroup, Proxy, Server, eventually, on_both_backends, os};

use crate::capture_scope::{curl, witness, world};
use crate::exec_killed::network;
use crate::helper_gone::{Pair, World};
use crate::identity::{assert_all, assert_private, children};
use crate::{exec_killed, identity};

on_both_backends!(
    who_needs_it_is_served_on,
    one_that_hangs_can_be_killed,
    either_goes_on_without_the_other,
    one_that_dies_again_and_again_is_given_up,
    what_exec_set_up_is_undone_by_whoever_is_left,
    what_is_captured_later_is_known_to_the_next_one,
    both_are_confined_alike,
);

const SOON: Duration = Duration::from_secs(10);

/// More sockets than are stocked ahead, so that the helper has to be asked.
const CALLS: usize = 24;

/// Waits for another process in the place of one that was killed.
pub(crate) fn next(parent: u32, died: u32) -> u32 {
    let mut found = None;
    eventually("another one takes its place", SOON, || {
        found = children(parent).into_iter().find(|child| *child != died);
        found.is_some()
    });
    found.expect("it was found")
}

pub(crate) fn kill(process: u32) {
    os::kill(process, libc::SIGKILL).expect("it runs");
}

#[track_caller]
fn all_are_proxied(world: &World) {
    for call in 0..CALLS {
        assert_eq!(world.ask(), "proxied", "{call}");
    }
}

fn who_needs_it_is_served_on(backend: Backend) {
    let world = World::start(backend, "bypass");
    let Pair { keeper, mut worker } = Pair::of(world.proxy.pid());
    for _ in 0..3 {
        kill(worker);
        // Beside its start, and after it.
        all_are_proxied(&world);
        worker = next(keeper, worker);
    }
    assert_eq!(world.readiness().0, Some(200));
    world.the_listener_answers_at_once();
    let log = world.proxy.log();
    assert!(log.contains("was replaced"), "{log}");
    assert!(!log.contains("does not answer"), "{log}");
}

fn one_that_hangs_can_be_killed(backend: Backend) {
    let world = World::start(backend, "bypass");
    let Pair { keeper, worker } = Pair::of(world.proxy.pid());
    os::kill(worker, libc::SIGSTOP).expect("it runs");
    let crowd = world.crowd();
    eventually("readyz tells", SOON, || world.says("does not answer"));
    // With questions that it has not answered.
    kill(worker);
    next(keeper, worker);
    eventually("it is ready again", SOON, || {
        world.readiness().0 == Some(200)
    });
    drop(crowd);
    eventually("all is as before", SOON, || world.ask() == "proxied");
    all_are_proxied(&world);
}

fn either_goes_on_without_the_other(backend: Backend) {
    let world = World::start(backend, "bypass");
    let proxy = world.proxy.pid();
    let Pair { keeper, worker } = Pair::of(proxy);
    kill(keeper);
    // The worker keeps another one now.
    eventually("it starts a worker", SOON, || children(worker).len() == 1);
    all_are_proxied(&world);
    let second = children(worker)[0];
    kill(second);
    next(worker, second);
    all_are_proxied(&world);
    assert_eq!(world.readiness().0, Some(200));
    let World { proxy, .. } = world;
    drop(proxy);
    eventually("it has ended", SOON, || os::kill(worker, 0).is_err());
}

fn one_that_dies_again_and_again_is_given_up(backend: Backend) {
    let world = World::start(backend, "bypass");
    let keeper = Pair::of(world.proxy.pid()).keeper;
    let mut killed = Vec::new();
    let until = Instant::now() + SOON;
    while killed.len() < 20 && !world.says("helper has ended") {
        assert!(Instant::now() < until, "readyz tells");
        for worker in children(keeper) {
            if !killed.contains(&worker) && os::kill(worker, libc::SIGKILL).is_ok() {
                killed.push(worker);
            }
        }
    }
    assert_eq!(killed.len(), 6, "one, and five after it");
    eventually("connects go direct", SOON, || world.ask() == "direct");
    world.the_listener_answers_at_once();
    // It waits for the end, to undo.
    assert!(os::kill(keeper, 0).is_ok());
    let World { proxy, .. } = world;
    drop(proxy);
    eventually("and ends", SOON, || os::kill(keeper, 0).is_err());
}

fn what_exec_set_up_is_undone_by_whoever_is_left(backend: Backend) {
    for capture in ["{}", "{ mode: iptables }"] {
        for keeper_dies in [false, true] {
            let mut world = exec_killed::World::start(backend, capture);
            let helper = children(world.exec.id());
            let helper = helper
                .into_iter()
                .find(|child| !children(*child).is_empty());
            let keeper = helper.expect("it has a worker");
            let worker = children(keeper)[0];
            match keeper_dies {
                true => {
                    kill(keeper);
                    eventually("it keeps", SOON, || children(worker).len() == 1);
                }
                false => {
                    kill(worker);
                    next(keeper, worker);
                }
            }
            world.kill();
        }
    }
}

fn what_is_captured_later_is_known_to_the_next_one(backend: Backend) {
    let spaces = [(); 3].map(|()| world(&["10.1.0.0/16"]));
    let cgroups = [(); 3].map(|()| Cgroup::new());
    let _servers = spaces.each_ref().map(witness);
    let before = spaces.each_ref().map(network);
    let config = |count: usize| {
        let targets = spaces.iter().zip(&cgroups).take(count);
        let targets = targets.map(|(space, cgroup)| {
            let (path, netns) = (cgroup.path().display(), space.path().display());
            format!("{{ path: {path}, netns: {netns} }}")
        });
        let targets = targets.collect::<Vec<_>>().join(", ");
        // No connection is used twice, so that each takes a socket of the helper.
        format!(
            "workers: 1\ncapture: {{ cgroups: [{targets}] }}\n\
             upstreams: {{ web: {{ hosts: [10.1.0.0/16], pool: {{ max_idle: 0 }} }} }}\n"
        )
    };
    let is_proxied = |place: usize| {
        let output = curl(&spaces[place], &cgroups[place], "http://10.1.2.3/");
        output.stdout == b"proxied"
    };
    // Has a loader stay that prints what the programs log.
    let launch = Launch {
        environment: vec![("AMBASSADOR_KERNEL_LOG".into(), "1".into())],
        ..Launch::default()
    };
    let proxy = Proxy::launch(backend, &config(1), launch);
    assert!(is_proxied(0));
    proxy.rewrite_config(&config(2));
    proxy.signal(libc::SIGHUP);
    eventually("the second one is captured", SOON, || is_proxied(1));

    let Pair { keeper, worker } = Pair::of(proxy.pid());
    kill(worker);
    next(keeper, worker);
    for place in [0, 1] {
        assert!((0..CALLS).all(|_| is_proxied(place)), "{place}");
    }
    proxy.rewrite_config(&config(3));
    proxy.signal(libc::SIGHUP);
    eventually("the third one is captured", SOON, || is_proxied(2));
    drop(proxy);
    eventually("all is undone", SOON, || {
        spaces.each_ref().map(network) == before
    });
}

fn both_are_confined_alike(backend: Backend) {
    let server = Server::ok();
    let cgroup = Cgroup::new();
    let proxy = Proxy::capturing(
        backend,
        &cgroup,
        &crate::capture::claim("10.1.2.3", &server),
    );
    let Pair { keeper, worker } = Pair::of(proxy.pid());
    kill(worker);
    let second = next(keeper, worker);
    for process in [keeper, second] {
        assert_all(process, "NoNewPrivs", "1");
        assert_all(process, "Seccomp", "2");
        assert_private(process);
    }
    for set in ["CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"] {
        assert_eq!(
            identity::of_threads(keeper, set),
            identity::of_threads(second, set)
        );
    }
}
