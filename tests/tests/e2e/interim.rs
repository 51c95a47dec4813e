//! Interim answers and `Expect: 100-continue`.

use ambassador_tests::{Answer, Call, Column, Proxy, matrix};

matrix!(
    interim_answers_pass,
    interim_answers_without_end_are_a_502,
    the_upstream_decides_about_continue,
    a_final_answer_instead_of_continue_passes,
);

fn interim_answers_pass(column: Column) {
    let server = column.script(|exchange| {
        exchange.request()?;
        exchange.interim(103, &[("Link", "</a.css>")])?;
        exchange.interim(102, &[])?;
        exchange.send(&Answer::ok("final"))
    });
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut client = column.connect(listen);
    for _ in 0..2 {
        let hints = client.call(&Call::get("/"));
        assert_eq!((hints.status, hints.field("link")), (103, Some("</a.css>")));
        assert_eq!(client.answer().status, 102);
        assert_eq!(client.answer().text(), "final");
    }
}

fn interim_answers_without_end_are_a_502(column: Column) {
    let server = column.script(|exchange| {
        exchange.request()?;
        (0..200).try_for_each(|_| exchange.interim(102, &[]))
    });
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut client = column.connect(listen);
    client.send(&Call::get("/"));
    let last = (0..200)
        .map(|_| client.answer())
        .find(|response| response.status != 102)
        .expect("they are not passed on for ever");
    assert_eq!(last.status, 502);
    assert_eq!(last.field("x-ambassador-reason"), Some("protocol-error"));
}

fn the_upstream_decides_about_continue(column: Column) {
    let server = column.script(|exchange| {
        assert_eq!(exchange.head().field("expect"), Some("100-continue"));
        exchange.interim(100, &[])?;
        let request = exchange.request()?;
        exchange.send(&Answer::ok(&request.body))
    });
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut client = column.connect(listen);
    for _ in 0..2 {
        let call = Call::new("PUT", "/").field("Expect", "100-continue");
        client.send(&call.announces(4));
        assert_eq!(
            client.answer().status,
            100,
            "before any of the body was sent"
        );
        client.piece("body");
        assert_eq!(client.answer().text(), "body");
    }
}

fn a_final_answer_instead_of_continue_passes(column: Column) {
    let server = column.script(|exchange| exchange.send(&Answer::status(417)));
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut client = column.connect(listen);
    let call = Call::new("PUT", "/").field("Expect", "100-continue");
    let answer = client.call(&call.announces(4));
    assert_eq!((answer.status, answer.reason()), (417, ""));
}
