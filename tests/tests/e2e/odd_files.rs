//! What stands where a file is expected: others may put it there, and it stops
//! nothing.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ambassador_tests::program::Running;
use ambassador_tests::proxy::{Scratch, ambassador, one_upstream};
use ambassador_tests::server::text;
use ambassador_tests::{
    Backend, Client, Proxy, Server, eventually, on_both_backends, ports, program,
};

on_both_backends!(
    a_configuration_that_is_no_file_changes_nothing,
    a_token_that_is_no_file_opens_nothing,
);

const SOON: Duration = Duration::from_secs(10);
const FAILURES: &str = "ambassador_config_reload_failures_total";
const RELOADS: &str = "ambassador_config_reloads_total";

fn free() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::free()))
}

fn fifo(path: &Path) {
    program::succeed(Command::new("mkfifo").arg(path));
}

/// Puts what `make` makes in the place of the configuration.
fn put_in_place(proxy: &Proxy, make: impl FnOnce(&Path)) {
    let file = proxy.config_file();
    let new = file.with_extension("odd");
    make(&new);
    std::fs::rename(new, file).expect("the directory is writable");
}

fn a_configuration_that_is_no_file_changes_nothing(backend: Backend) {
    let [one, two] = ["one", "two"].map(|name| Server::http(move |_| text(name)));
    let listen = free();
    let mut proxy = Proxy::start(backend, &one_upstream(listen, one.address(), ""));
    let until_more = |proxy: &Proxy, metric| {
        let before = proxy.metric(metric, &[]);
        move |proxy: &Proxy| {
            eventually(metric, SOON, || proxy.metric(metric, &[]) > before);
            assert_eq!(proxy.admin_status("/livez"), Some(200));
        }
    };
    let refused = until_more(&proxy, FAILURES);
    put_in_place(&proxy, fifo);
    refused(&proxy);
    let refused = until_more(&proxy, FAILURES);
    put_in_place(&proxy, |new| {
        symlink("/", new).expect("the directory is writable");
    });
    refused(&proxy);
    assert!(proxy.log().contains("is no regular file"));
    assert_eq!(Client::connect(listen).get("/").text(), "one");
    let reloaded = until_more(&proxy, RELOADS);
    proxy.rewrite_config(&one_upstream(listen, two.address(), ""));
    reloaded(&proxy);
    assert_eq!(Client::connect(listen).get("/").text(), "two");
    put_in_place(&proxy, fifo);
    proxy.signal(libc::SIGTERM);
    assert!(proxy.wait(SOON).success());
}

fn a_token_that_is_no_file_opens_nothing(backend: Backend) {
    let (server, admin, scratch) = (Server::ok(), free(), Scratch::new());
    let token = scratch.path().join("token");
    fifo(&token);
    let config = format!(
        "admin: {{ listen: \"{admin}\", token_file: {} }}\n{}",
        token.display(),
        one_upstream(free(), server.address(), "")
    );
    let file = scratch.file("odd.yaml", &config);
    let mut command = ambassador(backend);
    let _running = Running::start(command.args(["run", "--config"]).arg(file));
    eventually("it serves", SOON, || Client::try_connect(admin).is_some());
    let ask = |method: &str, path: &str| {
        let mut client = Client::connect(admin);
        client.send(format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Authorization: Bearer s3cret\r\nContent-Length: 0\r\n\r\n"
        ));
        client.response(method).status
    };
    assert_eq!(ask("POST", "/upstreams/web/breaker/open"), 403);
    assert_eq!(ask("GET", "/livez"), 200);
    std::fs::remove_file(&token).expect("it is there");
    std::fs::write(&token, "s3cret\n").expect("writable");
    assert_eq!(ask("POST", "/upstreams/web/breaker/open"), 200);
}
