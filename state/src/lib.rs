//! Map of the crate (see ARCHITECTURE.md).
