//! Whether a program may read what a snapshot holds: four outcomes, decided from two schemas alone.
//!
//! ```text
//!                     bytes                         what is done
//! as is               the same                      nothing
//! reconfiguration     the same                      the new description is recorded
//! migration           another layout, same meaning  entries are upgraded
//! incompatible        another meaning               refused before the first record
//! ```
//!
//! | change | outcome |
//! |---|---|
//! | name of a field, variant, struct or enum; a default; a retired id; a variant added | reconfiguration |
//! | field added with a default, removed, moved | migration |
//! | integer to a wider one that holds all its values | migration |
//! | `T` to `option<T>` | migration |
//! | field added without a default; variant removed; a retired id used again | incompatible |
//! | key of a map inside a value; parts of a tuple; length of an array | incompatible |
//! | foreign bytes of another name; everything else | incompatible |
//!
//! The same holds inside options, lists, arrays, values of maps, tuples, fields and variants.

use super::{Choice, Record, Schema};

/// What reading old bytes with a new schema takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Compatibility {
    /// Nothing: the schemas are equal.
    AsIs,
    /// The bytes stay; the new description takes the place of the old one.
    AfterReconfiguration,
    /// The bytes must be upgraded.
    AfterMigration,
    /// The bytes cannot be read.
    Incompatible,
}

/// One difference between two schemas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where, from the outside: `$.items[].price`, `$.side::limit.price`; `$` is the whole. Names are the new ones.
    pub path: String,
    /// What it means for the bytes.
    pub outcome: Compatibility,
    /// The rule that says so.
    pub rule: &'static str,
    /// What was there; empty if nothing.
    pub old: String,
    /// What is there now; empty if nothing.
    pub new: String,
}

/// All differences between two schemas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// In the order of the new schema; removed parts behind those that stayed.
    pub differences: Vec<Difference>,
}

impl Comparison {
    /// The worst of the differences.
    pub fn outcome(&self) -> Compatibility {
        let worst = self.differences.iter().map(|difference| difference.outcome).max();
        worst.unwrap_or(Compatibility::AsIs)
    }

    /// Differences of this outcome.
    pub fn of(&self, outcome: Compatibility) -> impl Iterator<Item = &Difference> {
        self.differences
            .iter()
            .filter(move |difference| difference.outcome == outcome)
    }
}

/// Compares what the snapshot holds with what the program declares.
///
/// ```
/// use keybed_snapshot::schema::{Compatibility, Schema, compatibility::compare};
///
/// let old = Schema::parse("struct order{1:id:u32,2:cents:i64}")?;
/// let new = Schema::parse("struct order{1:number:u64,2:cents:i32}")?;
/// let comparison = compare(&old, &new);
/// assert_eq!(comparison.outcome(), Compatibility::Incompatible);
/// let refused = comparison.of(Compatibility::Incompatible).next().unwrap();
/// assert_eq!((&*refused.path, &*refused.old, &*refused.new), ("$.cents", "i64", "i32"));
/// # Ok::<(), keybed_format::Error>(())
/// ```
pub fn compare(old: &Schema, new: &Schema) -> Comparison {
    let mut walk = Walk::default();
    walk.schemas(old, new);
    walk.found
}

/// Compares a whole chain of schemas, oldest first, with what the program declares: the last one decides, and no id
/// that any of them knew may come back with another meaning.
pub fn compare_chain(chain: &[Schema], new: &Schema) -> Comparison {
    let Some((last, earlier)) = chain.split_last() else {
        return Comparison::default();
    };
    let mut walk = Walk::default();
    walk.schemas(last, new);
    for schema in earlier {
        walk.reuse(schema, last, new);
    }
    let mut found = Comparison::default();
    for difference in walk.found.differences {
        if !found.differences.contains(&difference) {
            found.differences.push(difference);
        }
    }
    found
}

const RENAMED: &str = "renamed";
const MEANING: &str = "the meaning changed";

#[derive(Default)]
struct Walk {
    path: Vec<String>,
    found: Comparison,
}

impl Walk {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "texts and references to schemas alike"
    )]
    fn note(&mut self, outcome: Compatibility, rule: &'static str, old: impl ToString, new: impl ToString) {
        self.found.differences.push(Difference {
            path: format!("${}", self.path.concat()),
            outcome,
            rule,
            old: old.to_string(),
            new: new.to_string(),
        });
    }

    fn within(&mut self, part: String, walk: impl FnOnce(&mut Self)) {
        self.path.push(part);
        walk(self);
        self.path.pop();
    }

    fn schemas(&mut self, old: &Schema, new: &Schema) {
        use Compatibility::{AfterMigration, Incompatible};
        match (old, new) {
            (Schema::Option(old), Schema::Option(new)) => {
                self.within("?".into(), |walk| walk.schemas(old, new));
            }
            (old, Schema::Option(inner)) => {
                self.note(AfterMigration, "became optional", old, new);
                self.within("?".into(), |walk| walk.schemas(old, inner));
            }
            (Schema::Option(_), new) => self.note(Incompatible, "no longer optional", old, new),
            (Schema::Primitive(a), Schema::Primitive(b)) if a == b => {}
            (Schema::Primitive(a), Schema::Primitive(b)) => match (a.integer(), b.integer()) {
                (Some((from, signed_from)), Some((to, signed_to))) => {
                    let wider = to > from && (signed_to || !signed_from);
                    match wider {
                        true => self.note(AfterMigration, "widened", old, new),
                        false => self.note(Incompatible, "not all integers fit", old, new),
                    }
                }
                _ => self.note(Incompatible, MEANING, old, new),
            },
            (Schema::List(old), Schema::List(new)) => self.within("[]".into(), |walk| walk.schemas(old, new)),
            (Schema::Array(a, old_count), Schema::Array(b, new_count)) => {
                if old_count != new_count {
                    self.note(Incompatible, "the length of an array changed", old, new);
                }
                self.within("[]".into(), |walk| walk.schemas(a, b));
            }
            (Schema::Map(old_key, old_value), Schema::Map(new_key, new_value)) => {
                if old_key != new_key {
                    self.note(Incompatible, "the key of a map changed", old_key, new_key);
                }
                self.within("[]".into(), |walk| walk.schemas(old_value, new_value));
            }
            (Schema::Tuple(a), Schema::Tuple(b)) if a.len() == b.len() => {
                for (index, (old, new)) in a.iter().zip(b).enumerate() {
                    self.within(format!(".{index}"), |walk| walk.schemas(old, new));
                }
            }
            (Schema::Tuple(_), Schema::Tuple(_)) => {
                self.note(Incompatible, "the number of parts of a tuple changed", old, new);
            }
            (Schema::Struct(old), Schema::Struct(new)) => {
                self.renamed(&old.name, &new.name);
                self.records(old, new);
            }
            (Schema::Enum(old), Schema::Enum(new)) => self.choices(old, new),
            (Schema::Foreign(..), Schema::Foreign(..)) if old != new => {
                self.note(Incompatible, "foreign bytes cannot be compared", old, new);
            }
            (old, new) if old == new => {}
            (old, new) => self.note(Incompatible, MEANING, old, new),
        }
    }

    fn renamed(&mut self, old: &str, new: &str) {
        if old != new {
            self.note(Compatibility::AfterReconfiguration, RENAMED, old, new);
        }
    }

    fn records(&mut self, old: &Record, new: &Record) {
        use Compatibility::{AfterMigration, AfterReconfiguration, Incompatible};
        for field in &new.fields {
            self.path.push(format!(".{}", field.name));
            match old.find(field.id) {
                Some(known) => {
                    self.renamed(&known.name, &field.name);
                    self.schemas(&known.schema, &field.schema);
                    if known.schema == field.schema && known.default != field.default {
                        self.note(
                            AfterReconfiguration,
                            "another default",
                            hex(&known.default),
                            hex(&field.default),
                        );
                    }
                }
                None if old.retired.contains(&field.id) => {
                    self.note(
                        Incompatible,
                        "the id of a retired field is used again",
                        field.id,
                        field.id,
                    );
                }
                None if field.default.is_none() => {
                    self.note(Incompatible, "added without a default", "", &field.schema);
                }
                None => self.note(AfterMigration, "added with a default", "", &field.schema),
            }
            self.path.pop();
        }
        for field in old.fields.iter().filter(|field| new.find(field.id).is_none()) {
            let (id, schema) = (&field.name, &field.schema);
            self.within(format!(".{id}"), |walk| {
                walk.note(AfterMigration, "removed", schema, "");
            });
        }
        let stayed = |of: &Record, other: &Record| -> Vec<u32> {
            let ids = of.fields.iter().map(|field| field.id);
            ids.filter(|id| other.find(*id).is_some()).collect()
        };
        if stayed(old, new) != stayed(new, old) {
            self.note(AfterMigration, "fields moved", ids(old), ids(new));
        }
        self.retired(&old.retired, &new.retired);
    }

    fn choices(&mut self, old: &Choice, new: &Choice) {
        use Compatibility::{AfterReconfiguration, Incompatible};
        self.renamed(&old.name, &new.name);
        for variant in &new.variants {
            self.path.push(format!("::{}", variant.name));
            match old.find(variant.id) {
                Some(known) => {
                    self.renamed(&known.name, &variant.name);
                    self.records(&known.content, &variant.content);
                }
                None if old.retired.contains(&variant.id) => {
                    self.note(
                        Incompatible,
                        "the id of a retired variant is used again",
                        variant.id,
                        variant.id,
                    );
                }
                None => self.note(AfterReconfiguration, "variant added", "", variant.id),
            }
            self.path.pop();
        }
        for variant in old
            .variants
            .iter()
            .filter(|variant| new.find(variant.id).is_none())
        {
            let (name, id) = (&variant.name, variant.id);
            self.within(format!("::{name}"), |walk| {
                walk.note(Incompatible, "variant removed", id, "");
            });
        }
        self.retired(&old.retired, &new.retired);
    }

    /// Retired ids that the old schema named and the new one does not use are no danger, whether named again or not.
    fn retired(&mut self, old: &[u32], new: &[u32]) {
        if old != new {
            let (old, new) = (format!("{old:?}"), format!("{new:?}"));
            self.note(
                Compatibility::AfterReconfiguration,
                "other ids are retired",
                old,
                new,
            );
        }
    }

    /// Ids that `earlier` knew, `last` does not, and `new` uses.
    fn reuse(&mut self, earlier: &Schema, last: &Schema, new: &Schema) {
        match (bare(earlier), bare(last), bare(new)) {
            (Schema::List(a), Schema::List(b), Schema::List(c))
            | (Schema::Array(a, _), Schema::Array(b, _), Schema::Array(c, _))
            | (Schema::Map(_, a), Schema::Map(_, b), Schema::Map(_, c)) => {
                self.within("[]".into(), |walk| walk.reuse(a, b, c));
            }
            (Schema::Tuple(a), Schema::Tuple(b), Schema::Tuple(c)) => {
                for (index, ((a, b), c)) in a.iter().zip(b).zip(c).enumerate() {
                    self.within(format!(".{index}"), |walk| walk.reuse(a, b, c));
                }
            }
            (Schema::Struct(a), Schema::Struct(b), Schema::Struct(c)) => self.reuse_of_fields(a, b, c),
            (Schema::Enum(a), Schema::Enum(b), Schema::Enum(c)) => {
                for variant in &c.variants {
                    self.path.push(format!("::{}", variant.name));
                    let gone = a.find(variant.id).is_some() || a.retired.contains(&variant.id);
                    match (a.find(variant.id), b.find(variant.id)) {
                        (Some(a), Some(b)) => self.reuse_of_fields(&a.content, &b.content, &variant.content),
                        (_, None) if gone => {
                            self.reused("the id of a retired variant is used again", variant.id);
                        }
                        _ => {}
                    }
                    self.path.pop();
                }
            }
            _ => {}
        }
    }

    fn reuse_of_fields(&mut self, earlier: &Record, last: &Record, new: &Record) {
        for field in &new.fields {
            self.path.push(format!(".{}", field.name));
            let gone = earlier.find(field.id).is_some() || earlier.retired.contains(&field.id);
            match (earlier.find(field.id), last.find(field.id)) {
                (Some(a), Some(b)) => self.reuse(&a.schema, &b.schema, &field.schema),
                (_, None) if gone => self.reused("the id of a retired field is used again", field.id),
                _ => {}
            }
            self.path.pop();
        }
    }

    fn reused(&mut self, rule: &'static str, id: u32) {
        self.note(Compatibility::Incompatible, rule, id, id);
    }
}

/// Without the options around it, which a later schema may have added.
fn bare(schema: &Schema) -> &Schema {
    match schema {
        Schema::Option(inner) => bare(inner),
        other => other,
    }
}

fn ids(record: &Record) -> String {
    let ids: Vec<_> = record.fields.iter().map(|field| field.id).collect();
    format!("{ids:?}")
}

fn hex(default: &Option<Vec<u8>>) -> String {
    let bytes = default.iter().flatten();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}
