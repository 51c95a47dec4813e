//! What a reload changes while programs are attached.

use ambassador::testing::capture::CaptureError;
use ambassador::testing::capture::settings::Claims;
use ambassador::testing::capture::settings::OnFailure;
use ambassador::testing::capture::settings::Quic;
use ambassador_ebpf::Verdict;

use crate::fixture::Barred;
use crate::fixture::Cgroup;
use crate::fixture::Proxy;
use crate::fixture::pins_of;
use crate::fixture::programs_named;
use crate::fixture::register;
use crate::fixture::settings;
use crate::fixture::workloads;

const DESTINATION: &str = "10.1.2.3:443";

pub fn cgroups_come_and_go() {
    let (one, two) = (Cgroup::new("stays"), Cgroup::new("comes"));
    let proxy = Proxy::beating(&settings(&[&one]));
    let names = |cgroup: &Cgroup| {
        ["connect4", "connect6", "getpeername4", "getpeername6"]
            .map(|name| programs_named(&cgroup.0, name))
    };
    assert_eq!(names(&two), [0; 4]);

    let found = proxy.update(&settings(&[&one, &two]), &Claims::default());
    assert_eq!(found.len(), 1, "only what is new is looked at");
    assert_eq!(names(&one), [1; 4]);
    assert_eq!(names(&two), [1; 4]);
    assert_eq!(two.connect(DESTINATION), DESTINATION);
    assert_eq!(proxy.destination(1), DESTINATION);
    assert_eq!(one.connect(DESTINATION), DESTINATION);
    assert_eq!(proxy.destination(0), DESTINATION);
    proxy.capture.canary().expect("both are captured");
    for _ in 0..2 {
        proxy.accepted();
    }

    // The first goes; the number of the other stays.
    let mut rest = workloads(&settings(&[&one, &two]));
    rest.remove(0);
    let updated = proxy.try_to_update(&settings(&[&two]), &Claims::default(), rest);
    assert!(updated.expect("updated").is_empty());
    assert_eq!(names(&one), [0; 4]);
    assert_eq!(two.connect(DESTINATION), DESTINATION);
    assert_eq!(proxy.destination(1), DESTINATION);
    proxy.capture.canary().expect("the one that is left");
    proxy.clean();
    assert_eq!(names(&two), [0; 4]);
}

pub fn an_update_that_fails_changes_nothing() {
    let (one, two) = (Cgroup::new("kept"), Cgroup::new("tried"));
    let before = settings(&[&one]);
    let proxy = Proxy::beating(&before);
    let barred = Barred::new("barred");
    let mut wrong = settings(&[&one, &two, &barred.inner]);
    wrong.quic = Quic::Refuse;
    wrong.on_failure = OnFailure::Refuse;
    register(&proxy.helper, &wrong);
    let updated = proxy.try_to_update(&wrong, &Claims::default(), workloads(&wrong));
    match updated {
        Err(CaptureError::Step { what, .. }) => assert!(what.contains("making a socket"), "{what}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(programs_named(&two.0, "connect4"), 0);
    assert_eq!(one.connect_as(DESTINATION, "udp"), DESTINATION);
    assert_eq!(one.connect(DESTINATION), DESTINATION);
    assert_eq!(proxy.destination(0), DESTINATION);
    assert_eq!(pins_of(&one), 0);
    proxy.clean();
}

pub fn a_change_that_is_not_committed_leaves_nothing() {
    let (one, two) = (Cgroup::new("same"), Cgroup::new("nearly"));
    let before = settings(&[&one]);
    let proxy = Proxy::start(&before, &Claims::default(), true);
    proxy.beat();
    let mut after = settings(&[&one, &two]);
    after.quic = Quic::Refuse;
    after.on_failure = OnFailure::Refuse;
    after.exclude.ports = vec![443];
    register(&proxy.helper, &after);
    for _ in 0..2 {
        let staged = proxy
            .capture
            .stage(&after, &Claims::default(), workloads(&after))
            .expect("nothing is in its way");
        assert_eq!(programs_named(&two.0, "connect4"), 1);
        assert_eq!((pins_of(&one), pins_of(&two)), (7, 7));
        drop(staged);
        assert_eq!(programs_named(&two.0, "connect4"), 0);
        assert_eq!((pins_of(&one), pins_of(&two)), (0, 0));
        // The rules are those of before.
        assert_eq!(one.connect_as(DESTINATION, "udp"), DESTINATION);
        assert_eq!(one.connect(DESTINATION), DESTINATION);
        assert_eq!(proxy.destination(0), DESTINATION);
    }
    proxy.update(&after, &Claims::default());
    assert_eq!(two.connect("10.1.2.3:80"), "10.1.2.3:80");
    assert_eq!(proxy.destination(1), "10.1.2.3:80");
    proxy.clean();
}

pub fn quic_is_refused_from_an_update_on() {
    let cgroup = Cgroup::new("quic-later");
    let mut settings = settings(&[&cgroup]);
    let proxy = Proxy::beating(&settings);
    for (quic, expected) in [
        (Quic::Leave, DESTINATION),
        (Quic::Refuse, "ConnectionRefused"),
        (Quic::Leave, DESTINATION),
        (Quic::Refuse, "ConnectionRefused"),
    ] {
        settings.quic = quic;
        proxy.update(&settings, &Claims::default());
        for how in ["udp", "udp-send"] {
            assert_eq!(cgroup.connect_as(DESTINATION, how), expected, "{how}");
        }
        assert_eq!(programs_named(&cgroup.0, "connect4"), 1);
    }
    assert_eq!(proxy.count(Verdict::QuicRefused), 4);
    proxy.clean();
}

pub fn links_are_pinned_while_the_policy_wants_it() {
    let cgroup = Cgroup::new("policy");
    let mut settings = settings(&[&cgroup]);
    settings.quic = Quic::Refuse;
    let proxy = Proxy::start(&settings, &Claims::default(), true);
    assert_eq!(pins_of(&cgroup), 0);
    settings.on_failure = OnFailure::Refuse;
    proxy.update(&settings, &Claims::default());
    // Six links and the page that tells whether their proxy lives.
    assert_eq!(pins_of(&cgroup), 7);
    settings.quic = Quic::Leave;
    proxy.update(&settings, &Claims::default());
    assert_eq!(pins_of(&cgroup), 5);
    settings.on_failure = OnFailure::Bypass;
    proxy.update(&settings, &Claims::default());
    assert_eq!(pins_of(&cgroup), 0);
    settings.on_failure = OnFailure::Refuse;
    proxy.update(&settings, &Claims::default());
    drop(proxy);
    assert_eq!(cgroup.connect(DESTINATION), "ConnectionRefused");
}
