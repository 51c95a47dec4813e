use super::*;
use crate::message::{FieldList, sample};
use crate::policy::codes::Codes;
use crate::policy::statuses::Statuses;

fn list(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut list = FieldList(&mut bytes);
    for (name, value) in fields {
        list.push(name.as_bytes(), value.as_bytes());
    }
    bytes
}

/// What a response to a call with this head says, and these trailers behind it.
fn verdict(head: &str, trailers: Option<&[(&str, &str)]>) -> Verdict {
    let head = format!("HTTP/1.1 {head}\r\n\r\n");
    let response = sample::response(&head);
    let trailers = trailers.map(list);
    Verdict::of_call(&response, head.as_bytes(), trailers.as_deref())
}

fn ended(code: Code) -> Verdict {
    Verdict::Ended(CallEnd {
        code,
        pushback: None,
    })
}

#[test]
fn a_call_is_judged_by_its_head_or_by_its_trailers() {
    let unavailable = [("grpc-status", "14")];
    let head = "200 OK\r\ngrpc-status: 5";
    assert_eq!(verdict(head, Some(&[])), ended(Code::NotFound));
    assert_eq!(verdict(head, None), ended(Code::NotFound));
    assert_eq!(verdict("200 OK", None), Verdict::Open);
    let trailing = verdict("200 OK", Some(&unavailable));
    assert_eq!(trailing, ended(Code::Unavailable));
    assert_eq!(verdict("200 OK", Some(&[])), Verdict::Bridged(200));
    assert_eq!(verdict("503 No", None), Verdict::Bridged(503));
    // The server's own word counts, whatever the status.
    let odd = verdict("503 No", Some(&[("grpc-status", "0")]));
    assert_eq!(odd, ended(Code::Ok));
    let at_the_end = Verdict::of_trailers(200, &list(&unavailable));
    assert_eq!(at_the_end, ended(Code::Unavailable));
}

#[test]
fn failures_are_those_of_the_settings() {
    let settings = breaker::Settings::default();
    let failed = |verdict: Verdict| verdict.score(&settings) == Some(Score::Failure);
    for code in Code::ALL {
        let counts = breaker::Settings::FAILURE_CODES.contains(*code);
        assert_eq!(failed(ended(*code)), counts, "{code:?}");
    }
    assert!(failed(Verdict::Status(500)) && !failed(Verdict::Status(404)));
    assert!(failed(Verdict::Bridged(502)) && failed(Verdict::Bridged(200)));
    // UNIMPLEMENTED and PERMISSION_DENIED are no failures.
    assert!(!failed(Verdict::Bridged(404)) && !failed(Verdict::Bridged(403)));
    assert!(!failed(Verdict::Open));

    let other = breaker::Settings {
        failure_statuses: Statuses::default(),
        failure_codes: Codes::of(&[Code::Aborted]),
        ..settings
    };
    assert_eq!(ended(Code::Aborted).score(&other), Some(Score::Failure));
    assert_eq!(ended(Code::Internal).score(&other), Some(Score::Success));
    assert_eq!(Verdict::Bridged(503).score(&other), Some(Score::Success));
}

#[test]
fn a_limit_that_passed_is_its_owners() {
    let settings = breaker::Settings::default();
    let late = ended(Code::DeadlineExceeded);
    for (told, expected) in [
        (Some(Limit::Caller), None),
        (Some(Limit::Request), Some(Score::Failure)),
        (None, Some(Score::Success)),
    ] {
        let verdict = late.within(told);
        assert_eq!(verdict.score(&settings), expected, "{told:?}");
        assert_eq!(verdict.code(), Some(Code::DeadlineExceeded));
    }
    let other = ended(Code::Internal);
    assert_eq!(other.within(Some(Limit::Caller)), other);
}

#[test]
fn a_server_can_refuse_another_try() {
    let causes = |verdict: Verdict| {
        let causes = verdict.causes().into_iter();
        causes.flatten().collect::<Vec<_>>()
    };
    let pushed_back = |pushback| {
        Verdict::Ended(CallEnd {
            code: Code::Unavailable,
            pushback: Some(pushback),
        })
    };
    let unavailable = [Cause::Code(Code::Unavailable)];
    assert_eq!(causes(ended(Code::Unavailable)), unavailable);
    assert_eq!(causes(pushed_back(Pushback::Never)), []);
    let later = Pushback::After(Duration::from_millis(5));
    assert_eq!(causes(pushed_back(later)), unavailable);
    let bridged = [Cause::Status(502), Cause::Code(Code::Unavailable)];
    assert_eq!(causes(Verdict::Bridged(502)), bridged);
    assert_eq!(causes(Verdict::Open), []);
}

#[test]
fn an_endpoint_that_asks_for_less_is_not_bad() {
    let wait = Some(Duration::from_secs(1));
    let grade = |verdict: Verdict| {
        let score = verdict.score(&breaker::Settings::default());
        verdict.grade(score.expect("it says something"), wait)
    };
    let throttled = Grade::Throttled { retry_after: wait };
    assert_eq!(grade(ended(Code::ResourceExhausted)), throttled);
    assert_eq!(grade(Verdict::Status(429)), throttled);
    assert_eq!(
        grade(ended(Code::Internal)),
        Grade::Bad { retry_after: wait }
    );
    assert_eq!(grade(ended(Code::NotFound)), Grade::Good);
    assert_eq!(grade(Verdict::Open), Grade::Good);
}

#[test]
fn a_refusal_is_an_end_before_anything_else() {
    let head = "HTTP/1.1 200 OK\r\nx-ambassador-reason: loop\r\n\r\n";
    let response = sample::response(head);
    let answer = |verdict, is_whole| Answer {
        verdict,
        is_whole,
        response: &response,
        head: head.as_bytes(),
    };
    assert!(answer(ended(Code::Unavailable), true).is_refused_call());
    assert!(!answer(ended(Code::Unavailable), false).is_refused_call());
    assert!(!answer(Verdict::Bridged(503), true).is_refused_call());
    // That it goes in a circle is the caller's fault.
    let settings = breaker::Settings::default();
    assert_eq!(answer(ended(Code::Unknown), true).score(&settings), None);
    let failed = answer(Verdict::Status(500), false).score(&settings);
    assert_eq!(failed, Some(Score::Failure));
}
