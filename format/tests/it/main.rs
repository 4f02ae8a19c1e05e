//! Tests of the layouts from outside.

mod golden;
