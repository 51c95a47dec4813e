//! A request against a route table: whatever stands in target, authority and
//! fields, one decision is made, without a panic and the same each time.

#![no_main]

use std::sync::OnceLock;

use ambassador::testing::addr::OriginalDst;
use ambassador::testing::config::load_str;
use ambassador::testing::http1::parse_request;
use ambassador::testing::message::{Limits, RequestHead};
use ambassador::testing::route::{RequestKey, Resolution, Table};
use libfuzzer_sys::fuzz_target;

const FILE: &str = r#"
upstreams:
  pay: { hosts: [api.example, "*.pay.example:8443"], endpoints: ["10.1.2.3:80"] }
  any: { hosts: ["10.2.0.0/16", "::1"], endpoints: ["10.1.2.4:80"] }
routes:
  - { match: { host: api.example, path_prefix: /v1/charges, methods: [POST] }, upstream: any }
  - { match: { path_prefix: "/a/b" }, upstream: pay }
"#;

fuzz_target!(|bytes: &[u8]| {
    static TABLE: OnceLock<Table> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let checked = load_str("f", FILE).expect("it is right");
        Table::new(checked.routes)
    });
    let mut request = RequestHead::default();
    let Ok(Some(length)) = parse_request(&mut request, bytes, &Limits::default()) else {
        return;
    };
    let head = &bytes[..length];
    let Ok(authority) = request.authority(head, None) else {
        return;
    };
    let name = request.field(head, "x-upstream-host");
    let of = |original| RequestKey {
        original,
        tunnel: None,
        authority: authority.as_ref(),
        x_upstream_host: name,
        path: request.path(head),
        method: request.method_bytes(head),
    };
    let listener = of(None);
    let resolution = table.resolve_request(&listener);
    assert_eq!(resolution, table.resolve_request(&listener));
    // There is no other place that it could have been going to.
    assert!(!matches!(
        resolution,
        Resolution::Unmatched(_) | Resolution::Adopt(_)
    ));
    if let Resolution::Upstream(matched) = resolution {
        assert!(matched.strip_path <= listener.path.len());
    }
    // Captured, the name in the field steers nobody.
    let captured = of(Some(OriginalDst(([192, 0, 2, 1], 80).into())));
    let without = RequestKey {
        x_upstream_host: None,
        ..captured
    };
    assert_eq!(
        table.resolve_request(&captured),
        table.resolve_request(&without)
    );
});
