//! Heads for tests, taken in field by field.

use crate::message::fields::{Field, Fields, Form, kind_of};
use crate::message::{Method, RequestHead, ResponseHead};

/// A request with the lines of `head`: the first is its start line.
pub(crate) fn request(head: &str) -> RequestHead {
    let mut request = RequestHead {
        fields: fields(head),
        ..RequestHead::default()
    };
    let method = head.find(' ').expect("a method");
    let target = head[method + 1..].find(' ').expect("a target");
    request.method = Method::parse(&head.as_bytes()[..method]);
    request.method_text = (0, method as u32);
    request.target = (method as u32 + 1, (method + 1 + target) as u32);
    request.path_start = request.target.0;
    request
}

/// A response with the lines of `head`: the first has its status.
pub(crate) fn response(head: &str) -> ResponseHead {
    let status = head.split(' ').nth(1).expect("a status");
    ResponseHead {
        status: status.parse().expect("a number"),
        fields: fields(head),
        ..ResponseHead::default()
    }
}

fn fields(head: &str) -> Fields {
    let mut fields = Fields::default();
    let mut start = head.find("\r\n").expect("a line") + 2;
    for line in head[start..]
        .split("\r\n")
        .take_while(|line| !line.is_empty())
    {
        let colon = line.find(':').expect("a name");
        let end = start + line.trim_ascii_end().len();
        let blanks = line[colon + 1..].len() - line[colon + 1..].trim_ascii_start().len();
        let value = (start + colon + 1 + blanks).min(end);
        fields.push(
            head.as_bytes(),
            Field {
                name: (start as u32, (start + colon) as u32),
                value: (value as u32, end as u32),
                kind: kind_of(&line.as_bytes()[..colon]),
                form: Form::AsSent,
            },
        );
        start += line.len() + 2;
    }
    fields.close(head.as_bytes()).expect("few named fields");
    fields
}
