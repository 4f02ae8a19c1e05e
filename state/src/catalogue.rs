//! What a program declares against what a snapshot holds: all problems at once.
//!
//! ```text
//!   open (declare mode) ──▶ declarations ──┐
//!                                          ├─▶ merge ──▶ one catalogue ──▶ open (bind mode) on every subtask
//!   restored catalogue ────────────────────┘      `────▶ every problem of the operator
//! ```

use crate::StateRegistry;
use keybed_format::{Code, Error, Result};
use keybed_snapshot::{Schema, StateCatalogue, StateDeclaration};
use std::{collections::BTreeSet, sync::Arc};

/// The catalogue of an operator whose program declares `declared` and whose snapshot held `restored`.
///
/// Known states keep their ids, new ones get the next free ids in the order of declaration, undeclared ones stay, and
/// no id is ever reused.
///
/// # Errors
/// Every problem: `DuplicateStateName`, `StateKindChanged`, `KeySchemaIncompatible`, `NamespaceSchemaIncompatible`,
/// `MapKeySchemaChanged`, `ValueSchemaIncompatible`, `InvalidArgument` (a bound is exceeded).
pub fn merge(restored: &StateCatalogue, declared: &[StateDeclaration]) -> Result<StateCatalogue, Vec<Error>> {
    let mut catalogue = restored.clone();
    let mut seen = BTreeSet::new();
    let mut problems = Vec::new();
    for state in declared {
        if !seen.insert(state.name.as_str()) {
            problems.push(duplicate(&state.name));
        } else if let Err(found) = catalogue.declare(state) {
            problems.extend(found);
        }
    }
    if problems.is_empty() {
        Ok(catalogue)
    } else {
        Err(problems)
    }
}

/// An operator has one key, also where the program declares none of the states that were restored: they stay, and so do
/// their timers.
fn another_key(key_schema: &Schema, restored: &StateCatalogue) -> Option<Error> {
    let key_schema = key_schema.to_string();
    let mut living = restored.entries().iter().filter(|entry| !entry.dropped);
    let other = living.find(|entry| entry.state.key_schema != key_schema)?;
    Some(
        Error::new(Code::KeySchemaIncompatible, "the key had another schema")
            .with("state", &other.state.name)
            .expected_found(&other.state.key_schema, &key_schema),
    )
}

pub(crate) fn duplicate(name: &str) -> Error {
    Error::new(
        Code::DuplicateStateName,
        "two states of one operator carry the same name",
    )
    .with("state", name)
}

/// Runs `open` in declare mode, merges, and runs it in bind mode: for whoever drives keyed state by hand and owns the
/// catalogue.
///
/// # Errors
/// As [`merge`]; errors of `open`.
pub fn open<T>(
    key_schema: &Schema,
    restored: &StateCatalogue,
    mut open: impl FnMut(&mut StateRegistry) -> Result<T>,
) -> Result<(T, Arc<StateCatalogue>), Vec<Error>> {
    let mut registry = StateRegistry::declare(key_schema);
    open(&mut registry).map_err(|e| vec![e])?;
    let merged = merge(restored, registry.declarations());
    let catalogue = match (merged, another_key(key_schema, restored)) {
        (Ok(catalogue), None) => Arc::new(catalogue),
        (Ok(_), Some(problem)) => return Err(vec![problem]),
        (Err(mut problems), other) => {
            let told = problems.iter().any(|p| p.code() == Code::KeySchemaIncompatible);
            problems.extend(other.filter(|_| !told));
            return Err(problems);
        }
    };
    let mut registry = StateRegistry::bind(key_schema, catalogue.clone());
    let opened = open(&mut registry).map_err(|e| vec![e])?;
    Ok((opened, catalogue))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyCodec;

    fn declared(open: impl FnOnce(&mut StateRegistry) -> Result) -> Vec<StateDeclaration> {
        let mut registry = StateRegistry::declare(&u64::key_schema());
        open(&mut registry).unwrap();
        registry.declarations().to_vec()
    }

    fn first() -> StateCatalogue {
        let states = declared(|s| {
            s.value::<u64>("total")?;
            s.list::<u32>("recent")?;
            s.map::<String, u8>("by-sku")?;
            Ok(())
        });
        merge(&StateCatalogue::new(), &states).unwrap()
    }

    #[test]
    fn ids_survive_reordering_and_are_never_reused() {
        let states = declared(|s| {
            s.map::<String, u8>("by-sku")?;
            s.value::<bool>("new")?;
            Ok(())
        });
        let catalogue = merge(&first(), &states).unwrap();
        let ids: Vec<_> = catalogue
            .entries()
            .iter()
            .map(|e| (e.id.0, e.state.name.as_str()))
            .collect();
        assert_eq!(ids, [(1, "total"), (2, "recent"), (3, "by-sku"), (4, "new")]);
    }

    #[test]
    fn the_key_stays_even_if_no_restored_state_is_declared() {
        let codes = |key: Schema, name: &str| {
            let opened = open(&key, &first(), |states| states.value::<u64>(name));
            let problems = opened.map(|_| ()).err().unwrap_or_default();
            problems.iter().map(Error::code).collect::<Vec<_>>()
        };
        assert_eq!(codes(u32::key_schema(), "fresh"), [Code::KeySchemaIncompatible]);
        assert_eq!(codes(u32::key_schema(), "total"), [Code::KeySchemaIncompatible]);
        assert_eq!(codes(u64::key_schema(), "fresh"), []);
    }

    #[test]
    fn all_problems_come_at_once() {
        let mut registry = StateRegistry::declare(&u64::key_schema());
        registry.list::<u64>("total").unwrap();
        registry.list::<u64>("recent").unwrap();
        registry.map::<u32, u8>("by-sku").unwrap();
        registry.value::<u8>("twice").unwrap();
        registry.value::<u8>("twice").unwrap();
        let codes = |problems: Vec<Error>| problems.iter().map(Error::code).collect::<Vec<_>>();
        assert_eq!(
            codes(merge(&first(), registry.declarations()).unwrap_err()),
            [
                Code::StateKindChanged,
                Code::ValueSchemaIncompatible,
                Code::MapKeySchemaChanged,
                Code::DuplicateStateName
            ]
        );
        let mut registry = StateRegistry::declare(&String::key_schema());
        registry.value::<u64>("total").unwrap();
        registry.window_list::<i64, u32>("recent").unwrap();
        assert_eq!(
            codes(merge(&first(), registry.declarations()).unwrap_err()),
            [Code::KeySchemaIncompatible, Code::StateKindChanged]
        );
    }
}
