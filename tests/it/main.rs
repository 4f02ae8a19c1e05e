//! The facade as a program meets it.

mod fuzz_corpus;
mod gallery;
mod links;
