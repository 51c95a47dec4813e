//! Checks the section behind a body (RFC 9113 section 8.1).

use crate::http2::block::FieldBlock;
use crate::http2::fields;
use crate::message::BadMessage;
use crate::message::fields::Kind;

/// Whether these are trailers, which have no pseudo fields. Fields that only a
/// head may have are refused: a recipient that merges trailers into the head
/// (RFC 9110 section 6.5.1 forbids it) would change framing or routing with them.
///
/// # Errors
/// They are malformed, a stream error.
pub fn read_trailers(block: &FieldBlock) -> Result<(), BadMessage> {
    if block.is_too_large() {
        return Err(BadMessage::TrailerTooLarge);
    }
    let lines = block.bytes();
    for field in block.fields() {
        let name = field.name(lines);
        match fields::check(name, field.value(lines))? {
            Kind::ContentLength | Kind::Host | Kind::Te => return Err(BadMessage::TrailerName),
            _ if name == b"trailer" => return Err(BadMessage::TrailerName),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::sample::block;

    #[test]
    fn trailers_are_fields_without_a_meaning_on_the_way() {
        for lines in [
            "",
            "grpc-status: 0\ngrpc-message: ",
            "x-checksum: a b\nx-checksum: c",
        ] {
            assert_eq!(read_trailers(&block(lines)), Ok(()), "{lines}");
        }
        for (lines, expected) in [
            // RFC 9113 section 8.1.
            (":status: 200", BadMessage::PseudoField),
            ("a: b\n:path: /", BadMessage::PseudoField),
            // Sections 8.2.1 and 8.2.2.
            ("Grpc-Status: 0", BadMessage::FieldName),
            ("a b: c", BadMessage::FieldName),
            ("a:  b", BadMessage::FieldValue),
            ("a: b\u{1}", BadMessage::FieldValue),
            ("connection: close", BadMessage::ConnectionField),
            ("transfer-encoding: chunked", BadMessage::ConnectionField),
            // RFC 9110 section 6.5.1.
            ("content-length: 1", BadMessage::TrailerName),
            ("host: a", BadMessage::TrailerName),
            ("te: trailers", BadMessage::TrailerName),
            ("trailer: a", BadMessage::TrailerName),
        ] {
            assert_eq!(read_trailers(&block(lines)), Err(expected), "{lines}");
        }
    }

    #[test]
    fn a_section_that_is_too_large_is_refused() {
        let mut block = FieldBlock::new(40, 10);
        block.lines_mut().extend_from_slice(b"grpc-status: 0\r\n");
        block.end_line(11, 1, crate::http2::Indexing::Free);
        assert_eq!(read_trailers(&block), Err(BadMessage::TrailerTooLarge));
    }
}
