//! Reads the head of a request (RFC 9113 section 8.3.1).

use std::ops::Range;

use crate::addr::Authority;
use crate::http2::block::{COLON, FieldBlock, Indexing, LINE_END, RawField};
use crate::http2::fields;
use crate::message::fields::{Kind, Span, part};
use crate::message::grammar::{is_token, is_visible};
use crate::message::{BadMessage, Length, Method, RequestHead, Version};

/// Where the pseudo fields of a request are.
#[derive(Debug, Default)]
struct PseudoFields {
    method: Option<Span>,
    scheme: Option<Span>,
    authority: Option<Span>,
    path: Option<Span>,
    protocol: Option<Span>,
    /// How many there are.
    count: usize,
}

/// Reads a head whose parts are in the lines of `block` then; `ends`: the stream
/// ends with it.
///
/// Several cookies become one, in a line behind the others (RFC 9113 section
/// 8.2.3).
///
/// # Errors
/// The request is malformed, a stream error, or its head is too large, which is
/// answered.
pub fn read_request(
    request: &mut RequestHead,
    block: &mut FieldBlock,
    ends: bool,
) -> Result<(), BadMessage> {
    request.fields.clear();
    request.version = Version::Http2;
    if block.is_too_large() {
        return Err(BadMessage::HeadTooLarge);
    }
    let pseudo = PseudoFields::read(request, block)?;
    read_target(request, &pseudo, block.bytes())?;
    read_fields(request, pseudo.count, block)?;
    let lines = block.bytes();
    check_host(request, &pseudo, lines)?;
    request.length = find_length(request, lines, ends)?;
    request.fields.close(lines)?;
    if request.is_extended_connect() {
        // As HTTP/1.1 has it, for whatever goes by methods.
        request.method = Method::Get;
        request.method_text = block.append(b"GET");
    }
    Ok(())
}

impl PseudoFields {
    /// The fields in front of all others, each at most once. What stands in them is
    /// checked where each is taken in.
    fn read(request: &mut RequestHead, block: &FieldBlock) -> Result<Self, BadMessage> {
        let mut pseudo = Self::default();
        let lines = block.bytes();
        for field in block.fields() {
            let name = field.name(lines);
            let place = match name {
                b":method" => Some(&mut pseudo.method),
                b":scheme" => Some(&mut pseudo.scheme),
                b":authority" => Some(&mut pseudo.authority),
                b":path" => Some(&mut pseudo.path),
                b":protocol" => Some(&mut pseudo.protocol),
                [b':', ..] => None,
                _ => break,
            };
            let Some(place @ None) = place else {
                request.fields.blame(name);
                return Err(BadMessage::PseudoField);
            };
            *place = Some(field.value);
            pseudo.count += 1;
        }
        Ok(pseudo)
    }

    /// Whether those are there that a request with `method` has, and no other.
    fn check(&self, method: Method) -> Result<(), BadMessage> {
        // A tunnel has an authority alone (RFC 9113 section 8.5).
        let is_tunnel = method == Method::Connect && self.protocol.is_none();
        let has_superfluous = match is_tunnel {
            true => self.scheme.is_some() || self.path.is_some(),
            // RFC 8441 section 4.
            false => self.protocol.is_some() && method != Method::Connect,
        };
        let is_complete = match is_tunnel {
            true => self.authority.is_some(),
            false => self.scheme.is_some() && self.path.is_some(),
        };
        match (has_superfluous, is_complete) {
            (true, _) => Err(BadMessage::PseudoField),
            (false, false) => Err(BadMessage::MissingPseudoField),
            (false, true) => Ok(()),
        }
    }
}

/// Takes in method and target.
fn read_target(
    request: &mut RequestHead,
    pseudo: &PseudoFields,
    lines: &[u8],
) -> Result<(), BadMessage> {
    request.method_text = pseudo.method.ok_or(BadMessage::MissingPseudoField)?;
    let method = request.method_bytes(lines);
    let is_sound = !method.is_empty() && method.iter().all(|byte| is_token(*byte));
    request.method = Method::parse(method);
    require(request, b":method", is_sound)?;
    request.protocol = pseudo.protocol;
    pseudo.check(request.method)?;
    let text = |span: Option<Span>| span.map_or(&b""[..], |span| part(lines, span));
    if request.is_connect() {
        let authority = Authority::check(text(pseudo.authority));
        require(request, b":authority", matches!(authority, Ok(Some(_))))?;
        request.target = pseudo.authority.unwrap_or_default();
        request.target_authority = None;
    } else {
        require(request, b":scheme", is_scheme(text(pseudo.scheme)))?;
        require(
            request,
            b":path",
            is_path(text(pseudo.path), request.method),
        )?;
        let protocol = pseudo.protocol.map(|protocol| part(lines, protocol));
        require(request, b":protocol", protocol.is_none_or(is_protocol))?;
        request.target = pseudo.path.unwrap_or_default();
        request.target_authority = pseudo.authority;
    }
    request.path_start = request.target.0;
    Ok(())
}

/// The value of the pseudo field `name` has to be sound.
fn require(request: &mut RequestHead, name: &[u8], is_sound: bool) -> Result<(), BadMessage> {
    if !is_sound {
        request.fields.blame(name);
        return Err(BadMessage::PseudoValue);
    }
    Ok(())
}

/// One name, and perhaps a version (RFC 9110 section 7.8), of what may be asked of
/// HTTP/1.1 as well: not of itself in its other form.
fn is_protocol(protocol: &[u8]) -> bool {
    let mut parts = protocol.splitn(2, |byte| *byte == b'/');
    let is_sound = |part: &[u8]| !part.is_empty() && part.iter().all(|byte| is_token(*byte));
    parts.all(is_sound) && !protocol.eq_ignore_ascii_case(b"h2c")
}

/// RFC 3986 section 3.1.
fn is_scheme(scheme: &[u8]) -> bool {
    let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    scheme.first().is_some_and(u8::is_ascii_alphabetic) && scheme.iter().all(is_inner)
}

/// What stands in the request line of HTTP/1 as well. A fragment is never sent:
/// what follows it is path to some and nothing to others.
fn is_path(path: &[u8], method: Method) -> bool {
    let is_asterisk = path == b"*" && method == Method::Options;
    (path.starts_with(b"/") || is_asterisk) && is_visible(path) && !path.contains(&b'#')
}

/// Takes in the fields behind the first `from`.
fn read_fields(
    request: &mut RequestHead,
    from: usize,
    block: &mut FieldBlock,
) -> Result<(), BadMessage> {
    let lines = block.bytes();
    let is_cookie = |field: &&RawField| field.name(lines) == b"cookie";
    let crumbs = block.fields()[from..].iter().filter(is_cookie).count();
    for field in &block.fields()[from..] {
        if crumbs > 1 && is_cookie(&field) {
            let (name, value) = (field.name(lines), field.value(lines));
            fields::check(name, value).inspect_err(|_| request.fields.blame(name))?;
            continue;
        }
        fields::push(&mut request.fields, block, field)?;
    }
    if crumbs > 1 {
        let cookie = join_cookies(from, block);
        fields::push(&mut request.fields, block, &cookie)?;
    }
    Ok(())
}

/// Appends the cookies among the fields behind the first `from` as one line.
fn join_cookies(from: usize, block: &mut FieldBlock) -> RawField {
    const NAME: &[u8] = b"cookie";
    let start = block.bytes().len();
    block.lines_mut().extend_from_slice(NAME);
    block.lines_mut().extend_from_slice(COLON);
    let value = block.bytes().len();
    let mut indexing = Indexing::Free;
    for at in from..block.fields().len() {
        let crumb = block.fields()[at];
        let Range { start, end } = crumb.value.0 as usize..crumb.value.1 as usize;
        if crumb.name(block.bytes()) != NAME || start == end {
            continue;
        }
        let lines = block.lines_mut();
        if lines.len() > value {
            lines.extend_from_slice(b"; ");
        }
        lines.extend_from_within(start..end);
        if crumb.indexing == Indexing::Never {
            indexing = Indexing::Never;
        }
    }
    let end = block.bytes().len();
    block.lines_mut().extend_from_slice(LINE_END);
    RawField {
        name: (start as u32, (start + NAME.len()) as u32),
        value: (value as u32, end as u32),
        indexing,
        kind: None,
    }
}

/// Whom the request is for is said once, or twice alike.
fn check_host(
    request: &mut RequestHead,
    pseudo: &PseudoFields,
    lines: &[u8],
) -> Result<(), BadMessage> {
    let host = request.fields.only(Kind::Host, BadMessage::RepeatedHost)?;
    let host = host.map(|host| host.value(lines));
    let Some(authority) = pseudo.authority else {
        let host = host.ok_or(BadMessage::MissingPseudoField)?;
        return Authority::check(host)
            .map(drop)
            .map_err(|_| BadMessage::Host);
    };
    let authority = part(lines, authority);
    // Neither empty nor with user information.
    require(request, b":authority", Authority::check(authority).is_ok())?;
    let scheme = pseudo.scheme.map(|scheme| part(lines, scheme));
    match host {
        Some(host) if !is_same_host(authority, host, scheme) => Err(BadMessage::OtherHost),
        _ => Ok(()),
    }
}

/// Whether two texts name the same authority, where one may leave out the port of
/// the scheme.
fn is_same_host(one: &[u8], other: &[u8], scheme: Option<&[u8]>) -> bool {
    if one.eq_ignore_ascii_case(other) {
        return true;
    }
    let usual = match scheme {
        Some(scheme) if scheme.eq_ignore_ascii_case(b"https") => Some(443),
        Some(scheme) if scheme.eq_ignore_ascii_case(b"http") => Some(80),
        _ => None,
    };
    let parts = |text| {
        let authority = Authority::parse(text).ok()?;
        Some((authority.host().to_owned(), authority.port().or(usual)))
    };
    parts(one).is_some_and(|one| parts(other) == Some(one))
}

/// How long the body is. What follows a CONNECT is no body, but the bytes of the
/// tunnel.
fn find_length(request: &RequestHead, lines: &[u8], ends: bool) -> Result<Length, BadMessage> {
    let length = fields::content_length(&request.fields, lines)?;
    match length {
        Some(1..) if request.method == Method::Connect => Err(BadMessage::ConnectWithBody),
        Some(1..) if ends => Err(BadMessage::LengthWithoutBody),
        _ if request.method == Method::Connect || ends => Ok(Length::None),
        None => Ok(Length::Unknown),
        Some(0) => Ok(Length::None),
        Some(length) => Ok(Length::Exact(length)),
    }
}

#[cfg(test)]
mod tests;
