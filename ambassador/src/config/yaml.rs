//! YAML text to a tree that remembers lines. Scalars stay text: the type of
//! a value is decided by the key it stands under, so `no` or `1e3` mean
//! nothing special.

use std::collections::HashMap;

use saphyr_parser::{BufferedInput, Event, Parser, ScalarStyle, Span};

use super::findings::Findings;
use super::lookahead::{BoundedText, Lookahead};
use super::mistakes::Mistake;

/// Nesting; the file itself needs 7.
const DEPTH_MAX: usize = 32;
/// Values in all, what aliases stand for included. Each may take a kilobyte until
/// all is checked.
const NODES_MAX: usize = 60_000;
/// Bytes of all values and keys, what aliases stand for included. More than a
/// file can have without.
const BYTES_MAX: usize = 8 << 20;
/// The longest value; none of those that there are is as long.
const VALUE_BYTES_MAX: usize = 64 << 10;
/// The longest key; it stands in the path of all below it.
const KEY_BYTES_MAX: usize = 256;

/// A value and the line it starts on.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) line: usize,
    pub(super) text: String,
}

/// The one document of `text`; a mistake is reported where there is none.
pub(super) fn parse(text: &str, findings: &mut Findings) -> Option<Node> {
    let (text, lookahead) = BoundedText::new(text);
    let mut builder = Builder {
        parser: Parser::new_from_iter(text),
        lookahead,
        anchors: HashMap::new(),
        nodes: 0,
        bytes: 0,
    };
    match builder.document() {
        Ok(node) => Some(node),
        Err(mistake) => {
            findings.note(mistake);
            None
        }
    }
}

struct Builder<'input> {
    parser: Parser<'input, BufferedInput<BoundedText<'input>>>,
    lookahead: Lookahead,
    anchors: HashMap<usize, (Node, Extent)>,
    /// What is kept so far, copies for anchors and aliases included.
    nodes: usize,
    bytes: usize,
}

/// What a value takes, with all that is in it.
#[derive(Debug, Clone, Copy)]
struct Extent {
    nodes: usize,
    bytes: usize,
    /// Bytes that are not those of a value in it.
    own: usize,
    /// How deep the values in it are.
    height: usize,
}

impl<'input> Builder<'input> {
    fn document(&mut self) -> Result<Node, Mistake> {
        let mut root = Node {
            line: 1,
            value: Value::Null,
        };
        let mut documents = 0;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(mistake(span, "holds a second YAML document"));
                    }
                }
                event => root = self.node(event, span, 0)?.0,
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'input>, Span), Mistake> {
        let next = self.parser.next_event();
        if self.lookahead.is_too_far() {
            let line = match &next {
                Some(Ok((_, span))) => span.start.line(),
                Some(Err(error)) => error.marker().line(),
                None => 0,
            };
            return Err(Mistake {
                line,
                ..Mistake::of_file("holds too much between one pair of brackets".to_owned())
            });
        }
        self.lookahead.settle();
        match next {
            None => Ok((Event::StreamEnd, Span::default())),
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(Mistake {
                line: error.marker().line(),
                ..Mistake::of_file(format!("is not YAML: {}", error.info()))
            }),
        }
    }

    /// The value that begins with this event, and what it takes.
    fn node(
        &mut self,
        event: Event<'input>,
        span: Span,
        depth: usize,
    ) -> Result<(Node, Extent), Mistake> {
        self.check_depth(depth, span)?;
        let mut extent = Extent::of(0);
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                check_length(&text, VALUE_BYTES_MAX, "a value", span)?;
                extent = Extent::of(text.len());
                (scalar(&text, style), anchor)
            }
            Event::SequenceStart(anchor, _) => {
                let mut list = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => {
                            let (node, its) = self.node(event, span, depth + 1)?;
                            extent.hold(its, 0);
                            list.push(node);
                        }
                    }
                }
                (Value::List(list), anchor)
            }
            Event::MappingStart(anchor, _) => (self.map(depth, &mut extent)?, anchor),
            Event::Alias(anchor) => {
                let Some((_, extent)) = self.anchors.get(&anchor) else {
                    return Err(mistake(span, "holds an alias of what contains it"));
                };
                let extent = *extent;
                self.check_depth(depth + extent.height, span)?;
                self.keep(extent.nodes, extent.bytes, span)?;
                return Ok((self.anchors[&anchor].0.clone(), extent));
            }
            _ => return Err(mistake(span, "is not YAML: a value is missing")),
        };
        self.keep(1, extent.own, span)?;
        let line = span.start.line();
        let node = Node { line, value };
        if anchor > 0 {
            self.keep(extent.nodes, extent.bytes, span)?;
            self.anchors.insert(anchor, (node.clone(), extent));
        }
        Ok((node, extent))
    }

    fn map(&mut self, depth: usize, extent: &mut Extent) -> Result<Value, Mistake> {
        let mut map = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let line = span.start.line();
            let text = match event {
                Event::MappingEnd => return Ok(Value::Map(map)),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(mistake(span, "has a key that is not a plain word")),
            };
            check_length(&text, KEY_BYTES_MAX, "a key", span)?;
            self.keep(0, text.len(), span)?;
            let (event, span) = self.next()?;
            let (value, its) = self.node(event, span, depth + 1)?;
            extent.hold(its, text.len());
            map.push((Key { line, text }, value));
        }
    }

    fn check_depth(&self, depth: usize, span: Span) -> Result<(), Mistake> {
        match depth > DEPTH_MAX {
            true => Err(mistake(span, "is nested too deep")),
            false => Ok(()),
        }
    }

    /// Counts what is kept from here on.
    fn keep(&mut self, nodes: usize, bytes: usize, span: Span) -> Result<(), Mistake> {
        self.nodes += nodes;
        self.bytes += bytes;
        let what = "holds too many values, what aliases stand for included";
        match self.nodes > NODES_MAX || self.bytes > BYTES_MAX {
            true => Err(mistake(span, what)),
            false => Ok(()),
        }
    }
}

impl Extent {
    /// That of one value.
    fn of(bytes: usize) -> Self {
        Self {
            nodes: 1,
            bytes,
            own: bytes,
            height: 0,
        }
    }

    /// Another value, under a key of so many bytes, is in it.
    fn hold(&mut self, other: Self, key: usize) {
        self.nodes += other.nodes;
        self.bytes += other.bytes + key;
        self.height = self.height.max(other.height + 1);
    }
}

fn check_length(text: &str, bytes_max: usize, what: &str, span: Span) -> Result<(), Mistake> {
    match text.len() > bytes_max {
        true => Err(mistake(
            span,
            &format!("holds {what} of more than {bytes_max} bytes"),
        )),
        false => Ok(()),
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    match (style, text) {
        (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Value::Null,
        _ => Value::Text(text.to_owned()),
    }
}

fn mistake(span: Span, what: &str) -> Mistake {
    Mistake {
        line: span.start.line(),
        ..Mistake::of_file(what.to_owned())
    }
}
