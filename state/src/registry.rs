//! Where an operator declares its states, and where it gets the tokens for them.

use crate::{
    Codec, KeyCodec, ListState, MapState, ValueState, catalogue::duplicate, codec::datum::check_defaults,
    current::Slot,
};
use keybed_format::{Error, Result};
use keybed_snapshot::{ComponentOrder, Schema, StateCatalogue, StateDeclaration, StateId, StateKind};
use std::sync::Arc;

/// Collects an operator's declarations, or hands out the tokens that a catalogue gives them.
///
/// An operator's `open` runs once in *declare* mode before anything starts, and on every subtask in *bind* mode with
/// the catalogue that came of it, so that all subtasks agree on ids for ever. Tokens from declare mode reach nothing.
#[derive(Debug)]
pub struct StateRegistry {
    key_schema: Schema,
    catalogue: Option<Arc<StateCatalogue>>,
    declarations: Vec<StateDeclaration>,
}

impl StateRegistry {
    /// Declare mode; `key_schema` is [`KeyCodec::key_schema`] of the operator's key.
    pub fn declare(key_schema: &Schema) -> Self {
        StateRegistry {
            key_schema: key_schema.clone(),
            catalogue: None,
            declarations: Vec::new(),
        }
    }

    /// Bind mode: declarations must be in `catalogue`, exactly as made now.
    pub fn bind(key_schema: &Schema, catalogue: Arc<StateCatalogue>) -> Self {
        StateRegistry {
            key_schema: key_schema.clone(),
            catalogue: Some(catalogue),
            declarations: Vec::new(),
        }
    }

    /// What was declared so far, in order; duplicates included, [`merge`](crate::catalogue::merge) names them.
    pub fn declarations(&self) -> &[StateDeclaration] {
        &self.declarations
    }

    /// One value per key.
    ///
    /// # Errors
    /// `InvalidArgument` if a schema exceeds a bound (a type that contains itself has none), or a default is not of its
    /// field. In bind mode: `DuplicateStateName`, or the code of whatever differs from the catalogue.
    pub fn value<T: Codec>(&mut self, name: &str) -> Result<ValueState<T>> {
        let shape = Shape {
            value: T::schema(),
            ..Shape::key_first(StateKind::Value)
        };
        Ok(ValueState::new(self.slot(name, shape)?))
    }

    /// A list per key.
    ///
    /// # Errors
    /// As [`StateRegistry::value`].
    pub fn list<T: Codec>(&mut self, name: &str) -> Result<ListState<T>> {
        let shape = Shape {
            value: T::schema(),
            ..Shape::key_first(StateKind::List)
        };
        Ok(ListState::new(self.slot(name, shape)?))
    }

    /// A map per key.
    ///
    /// # Errors
    /// As [`StateRegistry::value`].
    pub fn map<K: KeyCodec, V: Codec>(&mut self, name: &str) -> Result<MapState<K, V>> {
        let shape = Shape {
            map_key: Some(K::key_schema()),
            value: V::schema(),
            ..Shape::key_first(StateKind::Map)
        };
        Ok(MapState::new(self.slot(name, shape)?))
    }

    /// One value per namespace (a window) and key, stored namespace-first.
    ///
    /// # Errors
    /// As [`StateRegistry::value`].
    pub fn window_value<N: KeyCodec, T: Codec>(&mut self, name: &str) -> Result<ValueState<T>> {
        let shape = Shape {
            value: T::schema(),
            ..Shape::namespace_first::<N>(StateKind::Value)
        };
        Ok(ValueState::new(self.slot(name, shape)?))
    }

    /// A list per namespace (a window) and key, stored namespace-first.
    ///
    /// # Errors
    /// As [`StateRegistry::value`].
    pub fn window_list<N: KeyCodec, T: Codec>(&mut self, name: &str) -> Result<ListState<T>> {
        let shape = Shape {
            value: T::schema(),
            ..Shape::namespace_first::<N>(StateKind::List)
        };
        Ok(ListState::new(self.slot(name, shape)?))
    }

    /// A map per namespace (a window) and key, stored namespace-first.
    ///
    /// # Errors
    /// As [`StateRegistry::value`].
    pub fn window_map<N: KeyCodec, K: KeyCodec, V: Codec>(&mut self, name: &str) -> Result<MapState<K, V>> {
        let shape = Shape {
            map_key: Some(K::key_schema()),
            value: V::schema(),
            ..Shape::namespace_first::<N>(StateKind::Map)
        };
        Ok(MapState::new(self.slot(name, shape)?))
    }

    fn slot(&mut self, name: &str, shape: Shape) -> Result<Slot> {
        let Shape {
            kind,
            order,
            namespace,
            map_key,
            value,
        } = shape;
        let schemas = [
            Some(&self.key_schema),
            namespace.as_ref(),
            map_key.as_ref(),
            Some(&value),
        ];
        for schema in schemas.into_iter().flatten() {
            let checked = schema.check().and_then(|()| check_defaults(schema));
            checked.map_err(|e| e.with("state", name.escape_debug()))?;
        }
        let text = |schema: &Option<Schema>| schema.as_ref().map(Schema::to_string).unwrap_or_default();
        let state = StateDeclaration {
            name: name.into(),
            kind,
            order,
            key_schema: self.key_schema.to_string(),
            namespace_schema: text(&namespace),
            map_key_schema: text(&map_key),
            value_schema: value.to_string(),
        };
        let id = match &self.catalogue {
            None => StateId(0),
            Some(_) if self.declarations.iter().any(|known| known.name == name) => {
                return Err(duplicate(name));
            }
            Some(catalogue) => bound_id(catalogue, &state)?,
        };
        self.declarations.push(state);
        Ok(Slot::new(id, kind, order))
    }
}

struct Shape {
    kind: StateKind,
    order: ComponentOrder,
    namespace: Option<Schema>,
    map_key: Option<Schema>,
    value: Schema,
}

impl Shape {
    fn key_first(kind: StateKind) -> Self {
        Shape {
            kind,
            order: ComponentOrder::KeyFirst,
            namespace: None,
            map_key: None,
            value: Schema::VOID,
        }
    }

    fn namespace_first<N: KeyCodec>(kind: StateKind) -> Self {
        let order = ComponentOrder::NamespaceFirst;
        Shape {
            order,
            namespace: Some(N::key_schema()),
            ..Shape::key_first(kind)
        }
    }
}

/// The id that the catalogue gives a declaration it holds already.
fn bound_id(catalogue: &StateCatalogue, state: &StateDeclaration) -> Result<StateId> {
    match catalogue.find(&state.name) {
        Some(known) if known.state == *state => Ok(known.id),
        Some(_) => Err(catalogue
            .clone()
            .declare(state)
            .err()
            .and_then(|problems| problems.into_iter().next())
            .unwrap_or_else(|| undeclared(state))),
        None => Err(undeclared(state)),
    }
}

fn undeclared(state: &StateDeclaration) -> Error {
    Error::invalid("a state is opened that was not declared before the operator started")
        .with("state", &state.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;
    use keybed_format::Code;

    #[test]
    fn a_subtask_that_declares_otherwise_is_refused() {
        let (_, catalogue) = catalogue::open(&u64::key_schema(), &StateCatalogue::new(), |states| {
            states.value::<u64>("total")
        })
        .unwrap();
        let mut registry = StateRegistry::bind(&u64::key_schema(), catalogue.clone());
        assert_eq!(
            registry.value::<u64>("other").unwrap_err().code(),
            Code::InvalidArgument
        );
        assert_eq!(
            registry.value::<u32>("total").unwrap_err().code(),
            Code::ValueSchemaIncompatible
        );
        registry.value::<u64>("total").unwrap();
        assert_eq!(
            registry.value::<u64>("total").unwrap_err().code(),
            Code::DuplicateStateName
        );
    }
}
