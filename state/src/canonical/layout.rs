//! Which part of an entry's components is the key: what bringing them into key-first order and back takes.
//!
//! ```text
//!   stored                              canonical
//!   key, map key            (key-first)   as stored
//!   namespace, key, map key (namespace-first)   key, namespace, map key      with the lengths of key and namespace
//!   time, key, namespace    (timers)      key, namespace, time               with the lengths of key and namespace
//! ```
//! Components are self-delimiting, but only for who knows their schema. The built-in ones are known here; a
//! namespace-first state whose namespace or key has a schema of the program's own keeps its stored order.

use keybed_format::{Cursor, Result};
use keybed_snapshot::{ComponentOrder, StateDeclaration, StateKind};

/// Bytes of a timer's time.
pub(super) const TIME_BYTES: usize = 8;
/// Schemas that are nested deeper are none of ours.
const DEPTH_MAX: u32 = 32;

/// Lengths of the leading components of a canonical entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// Bytes of the key.
    pub(super) key: usize,
    /// Bytes of the namespace.
    pub(super) namespace: usize,
}

/// How a state's components lie in a canonical file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// As they are stored.
    AsStored,
    /// Key, namespace, map key; the shapes tell them apart where the namespace comes first.
    Rotated {
        /// Shape of the namespace.
        namespace: Shape,
        /// Shape of the key; only maps need it, elsewhere the key is the rest.
        key: Option<Shape>,
    },
}

impl Layout {
    /// The layout of a state's entries.
    pub(super) fn of(state: &StateDeclaration) -> Layout {
        let rotated = || {
            if state.order != ComponentOrder::NamespaceFirst {
                return None;
            }
            let key = match state.kind {
                StateKind::Map => Some(Shape::of(&state.key_schema)?),
                _ => None,
            };
            let namespace = Shape::of(&state.namespace_schema)?;
            Some(Layout::Rotated { namespace, key })
        };
        rotated().unwrap_or(Layout::AsStored)
    }

    pub(super) fn is_rotated(&self) -> bool {
        matches!(self, Layout::Rotated { .. })
    }

    /// Where key and namespace lie in stored components (without a chunk id).
    ///
    /// # Errors
    /// `Malformed` if the components are not of this shape.
    pub(super) fn parts(&self, stored: &[u8]) -> Result<Option<Parts>> {
        let Layout::Rotated { namespace, key } = self else {
            return Ok(None);
        };
        let mut cursor = Cursor::new(stored);
        namespace.skip(&mut cursor)?;
        let namespace = cursor.position();
        match key {
            Some(key) => key.skip(&mut cursor)?,
            None => drop(cursor.take(cursor.remaining())?),
        }
        let key = cursor.position() - namespace;
        Ok(Some(Parts { key, namespace }))
    }
}

/// A built-in schema as far as its length goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Fixed(usize),
    /// Text or bytes: escaped zeros, a terminator.
    Escaped,
    Optional(Box<Shape>),
    Tuple(Vec<Shape>),
}

impl Shape {
    /// The shape of a schema text; `None` if it is none of the built-in ones.
    pub(super) fn of(schema: &str) -> Option<Shape> {
        let (shape, rest) = Self::parse(schema, 0)?;
        rest.is_empty().then_some(shape)
    }

    fn parse(text: &str, depth: u32) -> Option<(Shape, &str)> {
        if depth > DEPTH_MAX {
            return None;
        }
        if let Some(inner) = text.strip_prefix("option<") {
            let (shape, rest) = Self::parse(inner, depth + 1)?;
            return Some((Shape::Optional(Box::new(shape)), rest.strip_prefix('>')?));
        }
        if let Some(mut inner) = text.strip_prefix("tuple<") {
            let mut shapes = Vec::new();
            loop {
                let (shape, rest) = Self::parse(inner, depth + 1)?;
                shapes.push(shape);
                match rest.strip_prefix(',') {
                    Some(next) => inner = next,
                    None => return Some((Shape::Tuple(shapes), rest.strip_prefix('>')?)),
                }
            }
        }
        let end = text.find([',', '>']).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let shape = match name {
            "" if depth > 0 => return None,
            "" | "void" => Shape::Fixed(0),
            "u8" | "i8" | "bool" => Shape::Fixed(1),
            "u16" | "i16" => Shape::Fixed(2),
            "u32" | "i32" | "f32" | "char" => Shape::Fixed(4),
            "u64" | "i64" | "f64" => Shape::Fixed(8),
            "u128" | "i128" => Shape::Fixed(16),
            "string" | "bytes" => Shape::Escaped,
            other => Shape::Fixed(other.strip_prefix("bytes[")?.strip_suffix(']')?.parse().ok()?),
        };
        Some((shape, rest))
    }

    /// Moves behind one component.
    fn skip(&self, input: &mut Cursor<'_>) -> Result {
        match self {
            Shape::Fixed(bytes) => input.take(*bytes).map(drop),
            Shape::Escaped => loop {
                if input.u8()? == 0 && input.u8()? == 1 {
                    return Ok(());
                }
            },
            Shape::Optional(inner) => {
                if input.bool()? {
                    inner.skip(input)?;
                }
                Ok(())
            }
            Shape::Tuple(shapes) => shapes.iter().try_for_each(|shape| shape.skip(input)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyCodec, codec::encode_key};

    fn skipped<K: KeyCodec>(key: &K) {
        let mut bytes = encode_key(key);
        let length = bytes.len();
        bytes.extend([0, 1, 0xff, 7]);
        let shape = Shape::of(&K::key_schema().to_string()).expect("it is built in");
        let mut cursor = Cursor::new(&bytes);
        shape.skip(&mut cursor).unwrap();
        assert_eq!(cursor.position(), length, "{}", K::key_schema());
    }

    #[test]
    fn every_built_in_component_ends_where_it_ends() {
        skipped(&7_u8);
        skipped(&-7_i128);
        skipped(&1.5_f32);
        skipped(&'é');
        skipped(&());
        skipped(&[1_u8, 0, 1]);
        skipped(&"a\0b\u{1}".to_owned());
        skipped(&vec![0_u8, 0xff, 1, 0]);
        skipped(&(true, (Some("x".to_owned()), None::<u64>), vec![0_u8]));
        skipped(&(i64::MIN, i64::MAX));
    }

    #[test]
    fn schemas_of_the_program_are_not_guessed() {
        for schema in [
            "order{id:u64}",
            "u65",
            "tuple<u8",
            "tuple<>",
            "option<u8>x",
            "bytes[]",
            "bytes[-1]",
            ">",
            ",",
        ] {
            assert_eq!(Shape::of(schema), None, "{schema}");
        }
        assert_eq!(Shape::of(&"option<".repeat(10_000)), None);
        assert_eq!(Shape::of(""), Some(Shape::Fixed(0)));
    }
}
