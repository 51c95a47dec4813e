//! YAML text to a tree that remembers lines. Scalars stay text: the type of
//! a value is decided by the key it stands under, so `no` or `1e3` mean
//! nothing special.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::mistakes::Mistake;
use super::read::Found;

/// Nesting; the file itself needs 7.
const DEPTH_MAX: usize = 32;
/// Values in all, what aliases stand for included.
const NODES_MAX: usize = 200_000;

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
pub(super) fn parse(text: &str, found: &mut Found) -> Option<Node> {
    let mut builder = Builder {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        nodes: 0,
    };
    match builder.document() {
        Ok(node) => Some(node),
        Err(mistake) => {
            found.mistakes.push(mistake);
            None
        }
    }
}

struct Builder<'input> {
    parser: Parser<'input, saphyr_parser::StrInput<'input>>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
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
                event => root = self.node(event, span, 0)?,
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'input>, Span), Mistake> {
        match self.parser.next_event() {
            None => Ok((Event::StreamEnd, Span::default())),
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(Mistake {
                line: error.marker().line(),
                ..Mistake::of_file(format!("is not YAML: {}", error.info()))
            }),
        }
    }

    fn node(&mut self, event: Event<'input>, span: Span, depth: usize) -> Result<Node, Mistake> {
        if depth > DEPTH_MAX {
            return Err(mistake(span, "is nested too deep"));
        }
        let nodes_before = self.nodes;
        self.count(1, span)?;
        let line = span.start.line();
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => (scalar(&text, style), anchor),
            Event::SequenceStart(anchor, _) => {
                let mut list = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => list.push(self.node(event, span, depth + 1)?),
                    }
                }
                (Value::List(list), anchor)
            }
            Event::MappingStart(anchor, _) => (self.map(depth)?, anchor),
            Event::Alias(anchor) => {
                let Some((node, size)) = self.anchors.get(&anchor).cloned() else {
                    return Err(mistake(span, "holds an alias of what contains it"));
                };
                self.count(size, span)?;
                return Ok(node);
            }
            _ => return Err(mistake(span, "is not YAML: a value is missing")),
        };
        let node = Node { line, value };
        if anchor > 0 {
            let size = self.nodes - nodes_before;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    fn map(&mut self, depth: usize) -> Result<Value, Mistake> {
        let mut map = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let line = span.start.line();
            let text = match event {
                Event::MappingEnd => return Ok(Value::Map(map)),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(mistake(span, "has a key that is not a plain word")),
            };
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            map.push((Key { line, text }, value));
        }
    }

    fn count(&mut self, more: usize, span: Span) -> Result<(), Mistake> {
        self.nodes += more;
        match self.nodes > NODES_MAX {
            true => Err(mistake(span, "holds too many values")),
            false => Ok(()),
        }
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
