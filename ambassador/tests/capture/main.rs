//! Capture on the running kernel: real programs at real hooks, in cgroups of
//! the test's own. Needs root, cgroup2 and a binary built with the BPF object
//! (`cargo xtask test`); says so and fails without.
//!
//! The test is its own main, because the process that loads the programs and
//! the clients in the cgroups are this binary too.

mod circuits;
mod client;
mod decisions;
mod destinations;
mod fixture;
mod licence;
mod lifetime;
mod slots;
mod tokens;
mod updates;

use std::env;
use std::io::ErrorKind;
use std::process::ExitCode;

use ambassador::testing::capture;
use ambassador::testing::workload::helper;

/// Runs as a client in a cgroup: connects, prints its peer or the error.
pub const CLIENT: &str = "client";
/// Runs as a tokens::second proxy on a cgroup that has one.
pub const SECOND: &str = "second";
/// Runs as a proxy that gives up its capabilities once it has started.
pub const UNPRIVILEGED: &str = "unprivileged";
/// Runs as a proxy that has one connect captured, with the kernel's log on.
pub const LOGGED: &str = "logged";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().collect();
    match args.get(1).map(String::as_str) {
        Some(capture::LOADER_COMMAND) => return capture::loader_main(),
        Some(helper::SUBCOMMAND) => {
            return helper::serve(helper::Duties {
                loader: capture::LOADER_COMMAND,
                targets_in: |_| Ok(Vec::new()),
                named_by_iptables: |_| Err(ErrorKind::Unsupported.into()),
                install_iptables: |_, _, _| Ok(()),
                remove_iptables: |_, _| Ok(()),
                remove_token_prefix: |_, _| Ok(()),
            });
        }
        Some(CLIENT) => return client::client(&args[2], &args[3]),
        Some(SECOND) => return tokens::second(&args[2]),
        Some(UNPRIVILEGED) => return lifetime::unprivileged(&args[2]),
        Some(LOGGED) => return lifetime::logged(&args[2]),
        _ => {}
    }
    if !capture::built_with_capture() {
        eprintln!("capture tests need the BPF object: run `cargo xtask test`");
        return ExitCode::FAILURE;
    }
    let tests: &[(&str, fn())] = &[
        (
            "an_unmodified_curl_is_captured",
            destinations::an_unmodified_curl_is_captured,
        ),
        (
            "peers_are_shown_as_the_application_named_them",
            destinations::peers_are_shown_as_the_application_named_them,
        ),
        (
            "rules_decide_and_are_replaced_at_once",
            decisions::rules_decide_and_are_replaced_at_once,
        ),
        (
            "a_dead_proxy_does_what_on_failure_says",
            lifetime::a_dead_proxy_does_what_on_failure_says,
        ),
        (
            "tokens_cannot_be_borrowed",
            tokens::tokens_cannot_be_borrowed,
        ),
        (
            "the_canary_sings_only_when_captured",
            lifetime::the_canary_sings_only_when_captured,
        ),
        (
            "the_proxy_itself_is_left_alone",
            tokens::the_proxy_itself_is_left_alone,
        ),
        (
            "the_exemption_of_the_proxy_ends_with_it",
            tokens::the_exemption_of_the_proxy_ends_with_it,
        ),
        (
            "one_workload_leaves_half_of_the_slots",
            slots::one_workload_leaves_half_of_the_slots,
        ),
        (
            "many_that_ask_for_all_leave_something",
            slots::many_that_ask_for_all_leave_something,
        ),
        (
            "slots_come_back_when_nobody_uses_them",
            slots::slots_come_back_when_nobody_uses_them,
        ),
        (
            "a_token_leads_to_nothing_but_its_destination",
            slots::a_token_leads_to_nothing_but_its_destination,
        ),
        (
            "a_socket_cannot_use_a_token_that_is_not_its_own_any_more",
            slots::a_socket_cannot_use_a_token_that_is_not_its_own_any_more,
        ),
        (
            "what_is_used_keeps_its_slot",
            slots::what_is_used_keeps_its_slot,
        ),
        (
            "nothing_comes_back_while_a_shard_hangs",
            slots::nothing_comes_back_while_a_shard_hangs,
        ),
        (
            "connects_that_race_with_the_sweep_find_their_destination",
            slots::connects_that_race_with_the_sweep_find_their_destination,
        ),
        (
            "sockets_bound_to_a_device_do_what_on_failure_says",
            decisions::sockets_bound_to_a_device_do_what_on_failure_says,
        ),
        (
            "quic_is_refused_on_request",
            decisions::quic_is_refused_on_request,
        ),
        (
            "a_workload_may_live_in_another_namespace",
            destinations::a_workload_may_live_in_another_namespace,
        ),
        (
            "of_two_proxies_the_first_captures_and_the_second_knows",
            tokens::of_two_proxies_the_first_captures_and_the_second_knows,
        ),
        (
            "no_privilege_is_needed_after_the_start",
            lifetime::no_privilege_is_needed_after_the_start,
        ),
        (
            "racing_clients_agree_on_every_slot",
            destinations::racing_clients_agree_on_every_slot,
        ),
        (
            "the_kernel_side_logs_on_request",
            lifetime::the_kernel_side_logs_on_request,
        ),
        (
            "a_start_that_fails_leaves_nothing",
            lifetime::a_start_that_fails_leaves_nothing,
        ),
        (
            "workloads_share_a_table_and_nothing_else",
            destinations::workloads_share_a_table_and_nothing_else,
        ),
        (
            "pinned_links_outlive_the_proxy",
            lifetime::pinned_links_outlive_the_proxy,
        ),
        (
            "pins_are_taken_over_or_removed",
            lifetime::pins_are_taken_over_or_removed,
        ),
        (
            "a_loader_touches_nothing_but_what_is_registered",
            licence::a_loader_touches_nothing_but_what_is_registered,
        ),
        (
            "a_link_to_a_cgroup_is_refused",
            licence::a_link_to_a_cgroup_is_refused,
        ),
        (
            "pins_of_a_squatter_are_refused",
            licence::pins_of_a_squatter_are_refused,
        ),
        ("cgroups_come_and_go", updates::cgroups_come_and_go),
        (
            "an_update_that_fails_changes_nothing",
            updates::an_update_that_fails_changes_nothing,
        ),
        (
            "a_change_that_is_not_committed_leaves_nothing",
            updates::a_change_that_is_not_committed_leaves_nothing,
        ),
        (
            "quic_is_refused_from_an_update_on",
            updates::quic_is_refused_from_an_update_on,
        ),
        (
            "links_are_pinned_while_the_policy_wants_it",
            updates::links_are_pinned_while_the_policy_wants_it,
        ),
        (
            "an_open_circuit_refuses_connects_at_once",
            circuits::an_open_circuit_refuses_connects_at_once,
        ),
        (
            "of_many_connects_one_takes_the_permit",
            circuits::of_many_connects_one_takes_the_permit,
        ),
        (
            "a_permit_holds_until_it_expires_or_the_proxy_decides",
            circuits::a_permit_holds_until_it_expires_or_the_proxy_decides,
        ),
        (
            "circuits_go_where_claims_go",
            circuits::circuits_go_where_claims_go,
        ),
        (
            "the_circuits_of_a_dead_proxy_refuse_nothing",
            circuits::the_circuits_of_a_dead_proxy_refuse_nothing,
        ),
    ];
    let only = args.iter().skip(1).find(|arg| !arg.starts_with('-'));
    let mut failed = 0;
    for (name, test) in tests {
        if only.is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let passed = std::panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    ExitCode::from(u8::from(failed > 0))
}
