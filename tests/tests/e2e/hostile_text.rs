//! What a peer or a file says moves no cursor and begins no line, wherever it is
//! shown.

use std::time::Duration;

use ambassador_tests::proxy::{ambassador, one_upstream};
use ambassador_tests::{Backend, Client, Proxy, Server, eventually, on_http1, ports, program};

use crate::access_log::{LOGGED, lines};

on_http1!(logs_show_it_as_numbers,);

/// C1, override of direction, separators of lines, no width.
const HOSTILE: &str = "\u{9b}31m\u{202e}\u{2028}\u{2029}\u{feff}\u{2066}";

#[track_caller]
fn is_plain(text: &str) {
    let hostile = |c: char| c != '\n' && (c.is_control() || HOSTILE[2..].contains(c) && c > '~');
    let found: Vec<char> = text.chars().filter(|c| hostile(*c)).collect();
    assert!(found.is_empty(), "{found:?} in {text:?}");
}

fn logs_show_it_as_numbers(backend: Backend) {
    let server = Server::ok();
    let listen = ([127, 0, 0, 1], ports::free()).into();
    let config = one_upstream(listen, server.address(), "");
    let proxy = Proxy::start(backend, &format!("{LOGGED}{config}"));
    let mut client = Client::connect(listen);
    client.send(format!(
        "GET /{HOSTILE} HTTP/1.1\r\nHost: web.test\r\nx-request-id: a{HOSTILE}\r\n\r\n"
    ));
    assert_eq!(client.response("GET").status, 200);
    assert_eq!(lines(&proxy, 1)[0]["request_id"], format!("a{HOSTILE}"));
    is_plain(&proxy.log());

    // As does a file that a running proxy refuses.
    let keys = format!("\"a\\e[2J{HOSTILE}\\nINFO forged\": \"\\e]0;x\\a{HOSTILE}\"\n");
    proxy.rewrite_config(&format!("{config}{keys}spin: \"{HOSTILE}\\nforged\"\n"));
    let told = || proxy.log().contains("must be one of");
    eventually("it is refused", Duration::from_secs(5), told);
    is_plain(&proxy.log());
    let log = proxy.log();
    assert!(
        log.lines().all(|line| line.starts_with(['2', '{'])),
        "{log}"
    );

    let file = proxy.config_file();
    let output = program::output(ambassador(backend).arg("check").arg(&file));
    assert_eq!(output.status.code(), Some(78));
    is_plain(&String::from_utf8_lossy(&output.stderr));
    proxy.rewrite_config(&config);
    let asked = format!("http://{HOSTILE}/");
    let mut explain = ambassador(backend);
    explain
        .arg("explain")
        .arg("--config")
        .arg(&file)
        .arg(&asked);
    let output = program::output(&mut explain);
    assert_eq!(output.status.code(), Some(64));
    is_plain(&String::from_utf8_lossy(&output.stderr));
}
