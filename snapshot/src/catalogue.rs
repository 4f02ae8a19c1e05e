//! The catalogue of an operator's states: name → id, kind, layout, schemas.
//!
//! Ids are part of every stored key, so they are allotted once per operator before any task opens, are equal on all
//! subtasks, live in the metadata, and are never reused, not even after a state was dropped. A state that the program
//! no longer declares stays in the catalogue and its data is carried on.

use crate::schema::{Compatibility, Schema, compatibility::compare};
use keybed_format::{Code, Error, Result};

/// Most states of one operator, dropped ones included.
pub const STATES_MAX: usize = 4096;
/// Longest name of a state, in bytes.
pub const STATE_NAME_BYTES_MAX: usize = 255;
/// Longest text of a schema, in bytes.
pub const SCHEMA_BYTES_MAX: usize = 64 << 10;

/// Number of a state inside its operator, from 1; 0 is never allotted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateId(pub u16);

/// What a state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum StateKind {
    /// One value per key.
    Value,
    /// A list per key.
    List,
    /// A map per key.
    Map,
    /// Timers of the operator.
    Timer,
    /// One value per key, reduced on write.
    Reducing,
    /// One accumulator per key.
    Aggregating,
}

/// Order of the components in the state's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ComponentOrder {
    /// Key, namespace, map key or list chunk.
    KeyFirst,
    /// Namespace, key, map key: windows.
    NamespaceFirst,
    /// Time, key, namespace: timers.
    TimeFirst,
}

/// What a program declares about a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDeclaration {
    /// Name, unique in the operator: 1–[`STATE_NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// What it is.
    pub kind: StateKind,
    /// Order of the components in its keys.
    pub order: ComponentOrder,
    /// Schema of the key.
    pub key_schema: String,
    /// Schema of the namespace; empty = void.
    pub namespace_schema: String,
    /// Schema of the map key; empty unless a map.
    pub map_key_schema: String,
    /// Schema of the value or element; empty for timers.
    pub value_schema: String,
}

/// A state of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueEntry {
    /// Its number, for ever.
    pub id: StateId,
    /// What was declared.
    pub state: StateDeclaration,
    /// Whether the user dropped it; the id stays taken.
    pub dropped: bool,
}

/// All states that an operator ever had, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateCatalogue {
    entries: Vec<CatalogueEntry>,
}

impl StateCatalogue {
    /// No states.
    pub fn new() -> Self {
        Self::default()
    }

    /// A catalogue read from outside.
    ///
    /// # Errors
    /// `Malformed` if ids are not 1, 2, 3 …, a living name occurs twice, or a bound is exceeded.
    pub fn from_entries(entries: Vec<CatalogueEntry>) -> Result<Self> {
        let mut catalogue = StateCatalogue::new();
        for entry in entries {
            let id_next = catalogue.entries.len() + 1;
            if usize::from(entry.id.0) != id_next || id_next > STATES_MAX || !bounded(&entry.state) {
                return Err(Error::new(
                    Code::Malformed,
                    "the catalogue of states is out of order or bounds",
                )
                .expected_found(id_next, entry.id.0));
            }
            if !entry.dropped && catalogue.find(&entry.state.name).is_some() {
                return Err(
                    Error::new(Code::Malformed, "a state occurs twice").with("state", entry.state.name)
                );
            }
            catalogue.entries.push(entry);
        }
        Ok(catalogue)
    }

    /// All states by id, dropped ones included.
    pub fn entries(&self) -> &[CatalogueEntry] {
        &self.entries
    }

    /// The living state of that name.
    pub fn find(&self, name: &str) -> Option<&CatalogueEntry> {
        self.entries.iter().find(|e| !e.dropped && e.state.name == name)
    }

    /// The id of a declared state: the one it has had before if it fits, else the next free one.
    ///
    /// A value's schema that reads the same bytes takes the place of the one before, so that an older program is
    /// compared with what newer ones may have written.
    ///
    /// # Errors
    /// Every problem: `StateKindChanged`, `KeySchemaIncompatible`, `NamespaceSchemaIncompatible`,
    /// `MapKeySchemaChanged`, `ValueSchemaIncompatible` (one per difference, with its path) if the state was something
    /// else before; `InvalidArgument` if a bound is exceeded.
    pub fn declare(&mut self, state: &StateDeclaration) -> Result<StateId, Vec<Error>> {
        let living = |entry: &&mut CatalogueEntry| !entry.dropped && entry.state.name == state.name;
        if let Some(known) = self.entries.iter_mut().find(living) {
            let problems = problems(&known.state, state);
            if !problems.is_empty() {
                return Err(problems);
            }
            known.state.value_schema.clone_from(&state.value_schema);
            return Ok(known.id);
        }
        if !bounded(state) || self.entries.len() >= STATES_MAX {
            let message = "the name or schema of a state is out of bounds, or there are too many";
            return Err(vec![
                Error::invalid(message).with("state", state.name.escape_debug()),
            ]);
        }
        let id = StateId(self.entries.len() as u16 + 1); // at most STATES_MAX
        self.entries.push(CatalogueEntry {
            id,
            state: state.clone(),
            dropped: false,
        });
        Ok(id)
    }

    /// Marks a state as dropped; its id stays taken. `false` if there is no such state.
    pub fn drop_state(&mut self, name: &str) -> bool {
        let living = self
            .entries
            .iter_mut()
            .find(|e| !e.dropped && e.state.name == name);
        living.map(|entry| entry.dropped = true).is_some()
    }
}

fn bounded(state: &StateDeclaration) -> bool {
    let schemas = [
        &state.key_schema,
        &state.namespace_schema,
        &state.map_key_schema,
        &state.value_schema,
    ];
    (1..=STATE_NAME_BYTES_MAX).contains(&state.name.len())
        && schemas.iter().all(|s| s.len() <= SCHEMA_BYTES_MAX)
}

/// Everything that keeps `new` from going on where `old` was.
fn problems(old: &StateDeclaration, new: &StateDeclaration) -> Vec<Error> {
    let problem = |code, message: &str, old: &str, found: &str| {
        Error::new(code, message)
            .with("state", &new.name)
            .expected_found(old, found)
    };
    if (old.kind, old.order) != (new.kind, new.order) {
        let [old, found] = [old, new].map(|state| format!("{:?} {:?}", state.kind, state.order));
        let message = "the state was of another kind or layout";
        return vec![problem(Code::StateKindChanged, message, &old, &found)];
    }
    let fixed = [
        (
            Code::KeySchemaIncompatible,
            "the key had another schema",
            &old.key_schema,
            &new.key_schema,
        ),
        (
            Code::NamespaceSchemaIncompatible,
            "the namespace had another schema",
            &old.namespace_schema,
            &new.namespace_schema,
        ),
        (
            Code::MapKeySchemaChanged,
            "the map key had another schema",
            &old.map_key_schema,
            &new.map_key_schema,
        ),
    ];
    let changed = fixed.into_iter().filter(|(_, _, old, new)| old != new);
    let mut problems: Vec<_> = changed
        .map(|(code, message, old, found)| problem(code, message, old, found))
        .collect();
    problems.extend(value_problems(old, new));
    problems
}

/// Differences of the values' schemas that change bytes.
fn value_problems(old: &StateDeclaration, new: &StateDeclaration) -> Vec<Error> {
    let (old_text, new_text) = (&old.value_schema, &new.value_schema);
    if old_text == new_text {
        return Vec::new();
    }
    let problem =
        |message: String| Error::new(Code::ValueSchemaIncompatible, message).with("state", &new.name);
    let (Ok(before), Ok(now)) = (Schema::parse(old_text), Schema::parse(new_text)) else {
        return vec![problem("the value had another schema".into()).expected_found(old_text, new_text)];
    };
    let comparison = compare(&before, &now);
    let worst = comparison.outcome();
    if worst < Compatibility::AfterMigration {
        return Vec::new();
    }
    let why = match worst {
        Compatibility::Incompatible => "the value had another schema",
        _ => "values would have to be migrated, which is not done yet",
    };
    let nothing = |text: &str| {
        if text.is_empty() {
            "nothing".to_owned()
        } else {
            text.to_owned()
        }
    };
    let refused = comparison.of(worst).map(|difference| {
        problem(format!("{why}: {}", difference.rule))
            .with("path", &difference.path)
            .expected_found(nothing(&difference.old), nothing(&difference.new))
    });
    refused.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str) -> StateDeclaration {
        StateDeclaration {
            name: name.into(),
            kind: StateKind::Value,
            order: ComponentOrder::KeyFirst,
            key_schema: "u64".into(),
            namespace_schema: String::new(),
            map_key_schema: String::new(),
            value_schema: "string".into(),
        }
    }

    #[test]
    fn a_name_keeps_its_id_and_a_dropped_id_stays_taken() {
        let mut catalogue = StateCatalogue::new();
        assert_eq!(catalogue.declare(&value("a")).unwrap(), StateId(1));
        assert_eq!(catalogue.declare(&value("b")).unwrap(), StateId(2));
        assert_eq!(catalogue.declare(&value("a")).unwrap(), StateId(1));
        assert!(catalogue.drop_state("a") && !catalogue.drop_state("a"));
        assert_eq!(catalogue.declare(&value("a")).unwrap(), StateId(3));
        assert_eq!(
            StateCatalogue::from_entries(catalogue.entries().to_vec()).unwrap(),
            catalogue
        );
    }

    #[test]
    fn every_difference_has_its_code() {
        let mut catalogue = StateCatalogue::new();
        catalogue.declare(&value("a")).unwrap();
        let other = |change: fn(&mut StateDeclaration)| {
            let mut state = value("a");
            change(&mut state);
            catalogue.clone().declare(&state).unwrap_err()[0].code()
        };
        assert_eq!(other(|s| s.kind = StateKind::List), Code::StateKindChanged);
        assert_eq!(
            other(|s| s.key_schema = "i64".into()),
            Code::KeySchemaIncompatible
        );
        assert_eq!(
            other(|s| s.namespace_schema = "i64".into()),
            Code::NamespaceSchemaIncompatible
        );
        assert_eq!(
            other(|s| s.map_key_schema = "i64".into()),
            Code::MapKeySchemaChanged
        );
        assert_eq!(
            other(|s| s.value_schema = "i64".into()),
            Code::ValueSchemaIncompatible
        );
    }

    #[test]
    fn a_schema_of_the_same_bytes_takes_the_place_of_the_one_before() {
        let with = |text: &str| StateDeclaration {
            value_schema: text.into(),
            ..value("a")
        };
        let mut catalogue = StateCatalogue::new();
        let first = with("struct order{1:id:u64,2:side:enum side{0:buy}}");
        catalogue.declare(&first).unwrap();
        let newer = with("struct order{1:number:u64,2:side:enum side{0:buy,1:sell}}");
        assert_eq!(catalogue.declare(&newer).unwrap(), StateId(1));
        assert_eq!(catalogue.find("a").unwrap().state, newer);
        // Back to the program that knows nothing of what the newer one may have written.
        let refused = catalogue.declare(&first).unwrap_err();
        assert_eq!(refused[0].code(), Code::ValueSchemaIncompatible);
        assert_eq!(catalogue.find("a").unwrap().state, newer);
    }

    #[test]
    fn every_difference_of_a_value_is_a_problem_of_its_own() {
        let with = |text: &str| StateDeclaration {
            value_schema: text.into(),
            ..value("a")
        };
        let mut catalogue = StateCatalogue::new();
        catalogue
            .declare(&with("struct order{1:id:u64,2:cents:i64}"))
            .unwrap();
        let new = StateDeclaration {
            key_schema: "u32".into(),
            ..with("struct order{1:id:u32,2:cents:i64,3:sku:string}")
        };
        let told: Vec<_> = catalogue
            .declare(&new)
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            told,
            [
                "KeySchemaIncompatible: the key had another schema [state a, expected u64, found u32]",
                "ValueSchemaIncompatible: the value had another schema: not all integers fit \
                 [state a, path $.id, expected u64, found u32]",
                "ValueSchemaIncompatible: the value had another schema: added without a default \
                 [state a, path $.sku, expected nothing, found string]",
            ]
        );
        let wider = with("struct order{1:id:u128,2:cents:i64}");
        let told: Vec<_> = catalogue
            .declare(&wider)
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            told,
            [
                "ValueSchemaIncompatible: values would have to be migrated, which is not done yet: widened \
                 [state a, path $.id, expected u64, found u128]"
            ]
        );
    }

    #[test]
    fn a_catalogue_from_outside_is_checked() {
        let entry = |id, name: &str| CatalogueEntry {
            id: StateId(id),
            state: value(name),
            dropped: false,
        };
        assert!(StateCatalogue::from_entries(vec![entry(2, "a")]).is_err());
        assert!(StateCatalogue::from_entries(vec![entry(1, "a"), entry(2, "a")]).is_err());
        assert!(StateCatalogue::from_entries(vec![entry(1, "")]).is_err());
    }
}
