//! Bytes of an older schema as bytes of a newer one.
//!
//! ```text
//!   schema 1 ──▶ schema 2 ──▶ schema 3      an entry of schema 1 takes two steps
//!            plan         plan
//! ```
//! A plan is compiled once per pair of schemas and copies runs of unchanged bytes whole. Entries of an old schema go
//! step by step along the chain, so that a field gets the default of the schema which introduced it. Whether a step
//! exists at all is decided by [`keybed_snapshot::schema::compatibility`].
//!
//! A plan trusts nothing about the bytes: broken ones give an error, or bytes that the codec refuses.

use super::shape::Shape;
use keybed_format::{Code, Cursor, Error, Result, Sink};
use keybed_snapshot::schema::{
    Compatibility, Record, Schema,
    compatibility::{compare, compare_chain},
};

/// Longest value that an upgrade makes, in bytes: the value limit of the store.
const UPGRADED_BYTES_MAX: usize = 64 << 20;

/// What takes values of one schema to the next one.
#[derive(Clone, Debug)]
pub struct Upgrade {
    step: Step,
}

/// What becomes of one part.
#[derive(Clone, Debug)]
enum Step {
    /// Its bytes stay.
    Keep(Shape),
    /// An integer of `from` bytes gets `by` more.
    Widen {
        from: usize,
        by: usize,
        signed: bool,
    },
    /// It becomes present.
    Wrap(Box<Step>),
    Optional(Box<Step>),
    List(Box<Step>),
    Array(Box<Step>, u32),
    Map(Shape, Box<Step>),
    /// Parts in their order, some dropped, some new.
    Sequence(Vec<Move>),
    /// Old parts found first, then written in another order.
    Reorder {
        old: Vec<Shape>,
        new: Vec<Source>,
    },
    /// By variant id, ascending.
    Choice(Vec<(u64, Step)>),
}

#[derive(Clone, Debug)]
enum Move {
    Take(Step),
    Drop(Shape),
    Put(Vec<u8>),
}

#[derive(Clone, Debug)]
enum Source {
    /// An old part, by its index.
    Old(usize, Step),
    Put(Vec<u8>),
}

impl Upgrade {
    /// The step from `old` to `new`.
    ///
    /// # Errors
    /// `ValueSchemaIncompatible` with the first of the differences that forbid it; `InvalidArgument` if a schema
    /// exceeds a bound.
    pub fn between(old: &Schema, new: &Schema) -> Result<Upgrade> {
        old.check()?;
        new.check()?;
        let comparison = compare(old, new);
        if let Some(refused) = comparison.of(Compatibility::Incompatible).next() {
            let old = if refused.old.is_empty() {
                "nothing"
            } else {
                &refused.old
            };
            let new = if refused.new.is_empty() {
                "nothing"
            } else {
                &refused.new
            };
            return Err(Error::new(
                Code::ValueSchemaIncompatible,
                format!("the value had another schema: {}", refused.rule),
            )
            .with("path", &refused.path)
            .expected_found(old, new));
        }
        let step = match comparison.outcome() {
            Compatibility::AfterMigration => step(old, new),
            _ => Step::Keep(Shape::of(old)),
        };
        Ok(Upgrade { step })
    }

    /// Whether every value stays what it is.
    pub fn is_identity(&self) -> bool {
        matches!(self.step, Step::Keep(_))
    }

    /// Appends the value's bytes in the new schema; exactly `bytes` are the old value.
    ///
    /// # Errors
    /// `Malformed` if they are not a value of the old schema; `ValueTooLarge` if the new one exceeds 64 MiB. What was
    /// appended by then is of no use.
    pub fn apply(&self, bytes: &[u8], out: &mut Sink) -> Result {
        if self.is_identity() {
            out.raw(bytes);
            return Ok(());
        }
        let mut input = Cursor::new(bytes);
        let max = out.len().saturating_add(UPGRADED_BYTES_MAX);
        self.step.apply(&mut input, out, max)?;
        input.finish()
    }
}

/// All steps from the schemas of a chain to the newest one.
#[derive(Clone, Debug)]
pub struct UpgradeChain {
    steps: Vec<Upgrade>,
}

impl UpgradeChain {
    /// Steps along `chain`, oldest schema first; the last one is what values become.
    ///
    /// # Errors
    /// As [`Upgrade::between`], also if an id of any earlier schema comes back with another meaning.
    pub fn along(chain: &[Schema]) -> Result<UpgradeChain> {
        for (index, new) in chain.iter().enumerate() {
            let found = compare_chain(&chain[..index], new);
            if let Some(refused) = found.of(Compatibility::Incompatible).next() {
                return Err(Error::new(
                    Code::ValueSchemaIncompatible,
                    format!("the value had another schema: {}", refused.rule),
                )
                .with("path", &refused.path)
                .expected_found(&refused.old, &refused.new));
            }
        }
        let pairs = chain.iter().zip(chain.iter().skip(1));
        let steps = pairs
            .map(|(old, new)| Upgrade::between(old, new))
            .collect::<Result<_>>()?;
        Ok(UpgradeChain { steps })
    }

    /// Appends the newest form of a value of the chain's schema number `from` (from 0); no step is done if none
    /// changes bytes.
    ///
    /// # Errors
    /// As [`Upgrade::apply`]; `InvalidArgument` if the chain has no such schema.
    pub fn apply(&self, from: usize, bytes: &[u8], out: &mut Sink) -> Result {
        let steps = self.steps.get(from..).ok_or_else(|| {
            Error::invalid("a chain has no schema of that number").expected_found(self.steps.len(), from)
        })?;
        let mut changing = steps.iter().filter(|step| !step.is_identity()).peekable();
        let mut now = None::<Sink>;
        while let Some(step) = changing.next() {
            let value = now.as_ref().map_or(bytes, Sink::as_slice);
            if changing.peek().is_none() {
                return step.apply(value, out);
            }
            let mut next = Sink::with_capacity(value.len());
            step.apply(value, &mut next)?;
            now = Some(next);
        }
        out.raw(bytes);
        Ok(())
    }
}

/// The step between two schemas that are compatible.
fn step(old: &Schema, new: &Schema) -> Step {
    match (old, new) {
        (Schema::Option(old), Schema::Option(new)) => match step(old, new) {
            Step::Keep(shape) => Step::Keep(Shape::Optional(Box::new(shape))),
            inner => Step::Optional(Box::new(inner)),
        },
        (old, Schema::Option(inner)) => Step::Wrap(Box::new(step(old, inner))),
        (Schema::Primitive(from), Schema::Primitive(to)) if from != to => Step::Widen {
            from: old.bytes_min(),
            by: new.bytes_min() - old.bytes_min(),
            signed: from.integer().is_some_and(|(_, signed)| signed),
        },
        (Schema::List(a), Schema::List(b)) => match step(a, b) {
            Step::Keep(_) => Step::Keep(Shape::of(old)),
            inner => Step::List(Box::new(inner)),
        },
        (Schema::Array(a, count), Schema::Array(b, _)) => match step(a, b) {
            Step::Keep(_) => Step::Keep(Shape::of(old)),
            inner => Step::Array(Box::new(inner), *count),
        },
        (Schema::Map(key, a), Schema::Map(_, b)) => match step(a, b) {
            Step::Keep(_) => Step::Keep(Shape::of(old)),
            inner => Step::Map(Shape::of(key), Box::new(inner)),
        },
        (Schema::Tuple(a), Schema::Tuple(b)) => {
            in_order(a.iter().zip(b).map(|(old, new)| Move::Take(step(old, new))))
        }
        (Schema::Struct(old), Schema::Struct(new)) => fields(old, new),
        (Schema::Enum(a), Schema::Enum(b)) => {
            let kept = a.variants.iter().filter_map(|old| Some((old, b.find(old.id)?)));
            let steps = kept.map(|(old, new)| (u64::from(old.id), fields(&old.content, &new.content)));
            let steps: Vec<_> = steps.collect();
            match steps.iter().all(|(_, step)| matches!(step, Step::Keep(_))) {
                true => Step::Keep(Shape::of(old)),
                false => Step::Choice(steps),
            }
        }
        (old, _) => Step::Keep(Shape::of(old)),
    }
}

/// The step between the fields of two structs or variants.
fn fields(old: &Record, new: &Record) -> Step {
    let default = |default: &Option<Vec<u8>>| default.clone().unwrap_or_default();
    let position = |id: u32| old.fields.iter().position(|field| field.id == id);
    let stayed: Vec<_> = new.fields.iter().filter_map(|field| position(field.id)).collect();
    if !stayed.is_sorted() {
        let sources = new.fields.iter().map(|field| match position(field.id) {
            Some(index) => Source::Old(index, step(&old.fields[index].schema, &field.schema)),
            None => Source::Put(default(&field.default)),
        });
        return Step::Reorder {
            old: old.fields.iter().map(|field| Shape::of(&field.schema)).collect(),
            new: sources.collect(),
        };
    }
    let mut moves = Vec::new();
    let mut next = 0;
    let drop_until = |end: usize, next: &mut usize, moves: &mut Vec<Move>| {
        while *next < end {
            moves.push(Move::Drop(Shape::of(&old.fields[*next].schema)));
            *next += 1;
        }
    };
    for field in &new.fields {
        match position(field.id) {
            Some(index) => {
                drop_until(index, &mut next, &mut moves);
                moves.push(Move::Take(step(&old.fields[index].schema, &field.schema)));
                next = index + 1;
            }
            None => moves.push(Move::Put(default(&field.default))),
        }
    }
    drop_until(old.fields.len(), &mut next, &mut moves);
    in_order(moves.into_iter())
}

/// Moves one after the other; neighbours of one sort are joined.
fn in_order(moves: impl Iterator<Item = Move>) -> Step {
    let mut joined: Vec<Move> = Vec::new();
    let both = |a: &mut Shape, b: Shape| {
        *a = Shape::sequence([std::mem::replace(a, Shape::Fixed(0)), b].into_iter());
    };
    for next in moves {
        match (joined.last_mut(), next) {
            (Some(Move::Take(Step::Keep(a))), Move::Take(Step::Keep(b))) => both(a, b),
            (Some(Move::Drop(a)), Move::Drop(b)) => both(a, b),
            (Some(Move::Put(a)), Move::Put(b)) => a.extend(b),
            (_, next) => joined.push(next),
        }
    }
    match &mut joined[..] {
        [] => Step::Keep(Shape::Fixed(0)),
        [Move::Take(Step::Keep(shape))] => Step::Keep(shape.clone()),
        _ => Step::Sequence(joined),
    }
}

impl Step {
    fn apply(&self, input: &mut Cursor<'_>, out: &mut Sink, max: usize) -> Result {
        if out.len() > max {
            return Err(Error::new(Code::ValueTooLarge, "an upgraded value is too long")
                .with("max", UPGRADED_BYTES_MAX));
        }
        match self {
            Step::Keep(shape) => copy(shape, input, out)?,
            Step::Widen { from, by, signed } => {
                let bytes = input.take(*from)?;
                let negative = *signed && bytes.last().is_some_and(|byte| byte & 0x80 != 0);
                let fill = [if negative { 0xff } else { 0 }; 16];
                out.raw(bytes).raw(&fill[..*by]);
            }
            Step::Wrap(inner) => {
                out.bool(true);
                inner.apply(input, out, max)?;
            }
            Step::Optional(inner) => {
                let present = input.bool()?;
                out.bool(present);
                if present {
                    inner.apply(input, out, max)?;
                }
            }
            Step::List(inner) => {
                let count = input.count(1)?;
                out.count(count);
                for _ in 0..count {
                    inner.apply(input, out, max)?;
                }
            }
            Step::Array(inner, count) => {
                for _ in 0..*count {
                    inner.apply(input, out, max)?;
                }
            }
            Step::Map(key, value) => {
                let count = input.count(1)?;
                out.count(count);
                for _ in 0..count {
                    copy(key, input, out)?;
                    value.apply(input, out, max)?;
                }
            }
            Step::Sequence(moves) => {
                for next in moves {
                    match next {
                        Move::Take(step) => step.apply(input, out, max)?,
                        Move::Drop(shape) => shape.skip(input)?,
                        Move::Put(bytes) => drop(out.raw(bytes)),
                    }
                }
            }
            Step::Reorder { old, new } => {
                // The one allocation of a plan: where the old parts begin.
                let mut starts = Vec::with_capacity(old.len());
                for shape in old {
                    starts.push(input.clone());
                    shape.skip(input)?;
                }
                for source in new {
                    match source {
                        Source::Old(index, step) => step.apply(&mut starts[*index].clone(), out, max)?,
                        Source::Put(bytes) => drop(out.raw(bytes)),
                    }
                }
            }
            Step::Choice(variants) => {
                let at = input.clone();
                let id = input.varint()?;
                let Ok(index) = variants.binary_search_by_key(&id, |(id, _)| *id) else {
                    return Err(at
                        .malformed("a variant is unknown to the schema")
                        .with("found", id));
                };
                out.varint(id);
                variants[index].1.apply(input, out, max)?;
            }
        }
        Ok(())
    }
}

fn copy(shape: &Shape, input: &mut Cursor<'_>, out: &mut Sink) -> Result {
    let mut behind = input.clone();
    shape.skip(&mut behind)?;
    out.raw(input.take(behind.position() - input.position())?);
    Ok(())
}
