//! The upstream gets flaky: retries hide it where they may be made.

use super::{Stage, UPSTREAM, count, expect};
use crate::demo::paint::time;
use crate::demo::upstream::Script;
use crate::demo::{DESTINATION, curl};
use crate::workspace::Failure;

/// Calls that may be repeated.
const GETS: usize = 100;

/// Calls that may not, and as many that may, by their key.
const POSTS: usize = 20;

/// GET, of which every one is answered; POST, of which none is repeated; POST
/// with an idempotency key.
pub fn play(stage: &Stage) -> Result<(), Failure> {
    stage
        .paint
        .title("2. A flaky upstream, and a program that does not notice");
    println!("Of ten requests the upstream now answers two with 503 and resets one.\n");
    get(stage)?;
    println!("\nA POST could be carried out twice, so it is not tried again:\n");
    post(stage)?;
    println!("\nUnless the program says by a key that the upstream will know it again:\n");
    post_with_key(stage)
}

fn get(stage: &Stage) -> Result<(), Failure> {
    let Stage {
        scene,
        upstream,
        paint,
    } = stage;
    let before = scene.admin().metrics()?;
    let seen_before = upstream.requests();
    upstream.play(Script::Flaky);
    let url = format!("http://{DESTINATION}/hello?[1-{GETS}]");
    paint.command(&format!("curl '{url}'"));
    let answers = stage.calls(&[&url])?;
    let well = count(&answers, 200, "");
    let tries = upstream.requests() - seen_before;
    let after = scene.admin().metrics()?;
    let retries = |cause| {
        let labels = [UPSTREAM, ("cause", cause)];
        let name = "ambassador_retries_total";
        after.sum(name, &labels) - before.sum(name, &labels)
    };
    paint.row("answered 200", format!("{well} of {GETS}"));
    paint.row("tries that the upstream saw", tries);
    paint.row("tried again after a 503", retries("503"));
    paint.row("tried again after a reset", retries("reset"));
    paint.row("median, slowest", {
        let (median, longest) = (curl::median(&answers), curl::longest(&answers));
        format!("{}, {}", time(median), time(longest))
    });
    expect(well == GETS && tries > GETS, || {
        format!("{well} of {GETS} were answered 200, by {tries} tries")
    })
}

fn post(stage: &Stage) -> Result<(), Failure> {
    let Stage {
        upstream, paint, ..
    } = stage;
    upstream.play(Script::Flaky);
    let url = format!("http://{DESTINATION}/orders?[1-{POSTS}]");
    paint.command(&format!("curl -d amount=1 '{url}'"));
    let answers = stage.calls(&["-d", "amount=1", &url])?;
    let times = upstream.times_seen("POST /orders?");
    let repeated = times.iter().filter(|times| **times > 1).count();
    paint.row("answered 200", count(&answers, 200, ""));
    paint.row("503 of the upstream, as it is", count(&answers, 503, ""));
    paint.row(
        "502 `upstream-reset`",
        count(&answers, 502, "upstream-reset"),
    );
    paint.row("orders that the upstream saw", times.len());
    paint.row("of them more than once", repeated);
    expect((times.len(), repeated) == (POSTS, 0), || {
        format!("the upstream saw the orders so often: {times:?}")
    })
}

fn post_with_key(stage: &Stage) -> Result<(), Failure> {
    let Stage {
        upstream, paint, ..
    } = stage;
    upstream.play(Script::Flaky);
    let url = format!("http://{DESTINATION}/payments");
    paint.command(&format!(
        "curl -d amount=1 -H 'idempotency-key: 1' '{url}?1'   # and so on to {POSTS}"
    ));
    let mut answers = Vec::new();
    for number in 1..=POSTS {
        let key = format!("idempotency-key: {number}");
        let url = format!("{url}?{number}");
        answers.extend(stage.calls(&["-d", "amount=1", "-H", &key, &url])?);
    }
    let well = count(&answers, 200, "");
    let times = upstream.times_seen("POST /payments?");
    let repeated = times.iter().filter(|times| **times > 1).count();
    paint.row("answered 200", format!("{well} of {POSTS}"));
    paint.row("payments that the upstream saw", times.len());
    paint.row("of them more than once", repeated);
    expect(well == POSTS && repeated > 0, || {
        format!("{well} of {POSTS} were answered 200; the upstream saw them so often: {times:?}")
    })
}
