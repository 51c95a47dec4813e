//! Shards that begin and cease to hold idle connections at once.

use std::sync::Arc;

use ambassador_model::upstream::holders::Holders;
use ambassador_model::{explore, spawn};
use loom::sync::atomic::{AtomicU32, Ordering};

const SHARDS: u16 = 4;

#[test]
fn no_shard_undoes_what_another_says() {
    explore(|| {
        let holders = Arc::new(Holders::default());
        holders.announce(3, 1);
        let leaves = spawn(&holders, |holders| holders.withdraw(3, 1));
        let comes = spawn(&holders, |holders| {
            holders.announce(3, 2);
            holders.withdraw(3, 2);
            holders.announce(3, 2);
        });
        holders.announce(3, 0);
        leaves.join().unwrap();
        comes.join().unwrap();
        let known: Vec<u16> = holders.others(3, 3, SHARDS).collect();
        assert_eq!(known, [0, 2]);
    });
}

#[test]
fn who_is_found_has_what_it_announces() {
    explore(|| {
        let shared = Arc::new((Holders::default(), AtomicU32::new(0)));
        let holder = spawn(&shared, |(holders, idle)| {
            idle.store(1, Ordering::Relaxed);
            holders.announce(0, 1);
        });
        if shared.0.others(0, 0, SHARDS).next() == Some(1) {
            assert_eq!(shared.1.load(Ordering::Relaxed), 1);
        }
        holder.join().unwrap();
    });
}
