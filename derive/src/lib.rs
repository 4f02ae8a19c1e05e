//! Derive macros for `Codec` (values) and `KeyCodec` (keys): structs and enums whose fields and variants have *ids*.
//!
//! ```text
//! #[derive(Codec)]                          struct Order { … }  or  enum Side { … }
//! #[keybed(retired(3, 5))]                  ids of fields or variants that are gone; never used again
//! #[keybed(name = "order")]                 name in the schema; otherwise that of the type
//! #[keybed(crate = keybed_state)]           where the traits are; otherwise ::keybed::state
//!
//! #[keybed(id = 1)]                         on every field and variant: stands for its meaning, for ever
//! #[keybed(id = 2, default)]                on a field: its value in entries that were written before it existed …
//! #[keybed(id = 4, default = 7)]            … Default::default(), or an expression
//! #[keybed(id = 1, retired(2))]             on a variant: ids of its fields that are gone
//! ```
//! Names may change and fields may move; ids may not. What else may change: docs/format/schema.md, Compatibility.
//! Fields are written one after the other, so that a struct of fixed-width fields has fixed width.
//!
//! `KeyCodec` sorts as `#[derive(PartialOrd, Ord)]` does: fields in their order, variants in theirs. The ids of the
//! variants must ascend for that, and be below 256.
#![forbid(unsafe_code)]

mod attributes;
mod expand;

use proc_macro::TokenStream;

/// Derives `Codec`: values of states, elements of lists.
#[proc_macro_derive(Codec, attributes(keybed))]
pub fn codec(item: TokenStream) -> TokenStream {
    derived(item, expand::Target::Value)
}

/// Derives `KeyCodec`: keys, namespaces, map keys.
#[proc_macro_derive(KeyCodec, attributes(keybed))]
pub fn key_codec(item: TokenStream) -> TokenStream {
    derived(item, expand::Target::Key)
}

fn derived(item: TokenStream, target: expand::Target) -> TokenStream {
    let expanded = syn::parse(item).and_then(|item| expand::expand(&item, target));
    expanded.unwrap_or_else(syn::Error::into_compile_error).into()
}
