//! Behaviour of keyed state on every backend.

mod fixture;
mod states;
