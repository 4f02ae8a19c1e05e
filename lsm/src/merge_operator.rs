//! Merge operators: writes that say how to change a value without reading it.
//!
//! A merge of an operand into a key whose value is known (in the memtable) is folded at once; otherwise the operand
//! is stored as an entry of kind `Merge` and folded when a read, a flush or a compaction meets the older value, or
//! learns at the bottom that there is none.

use keybed_format::{Code, Error, Result};
use std::fmt::Debug;

/// How operands change a value. Pure: equal inputs give equal outputs, on every machine, for ever.
pub trait MergeOperator: Send + Sync + Debug + 'static {
    /// Name recorded with the family; a store is not opened with an operator of another name.
    fn name(&self) -> &str;

    /// Writes to `out` (empty on entry) what `operand` makes of `existing`; `None` = the key is absent.
    ///
    /// # Errors
    /// Refuses operands or values it cannot understand; the caller reports `MergeFailed`.
    fn merge(&self, existing: Option<&[u8]>, operand: &[u8], out: &mut Vec<u8>) -> Result;

    /// Writes to `out` (empty on entry) one operand that does the same as `older` and then `newer`, or returns
    /// false. Operators that cannot combine keep chains of operands, which are bounded by reading the value when a
    /// chain grows too long.
    ///
    /// # Errors
    /// As [`MergeOperator::merge`].
    fn combine(&self, older: &[u8], newer: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        let _ = (older, newer, out);
        Ok(false)
    }

    /// Refuses an operand before it is stored.
    ///
    /// # Errors
    /// As [`MergeOperator::merge`].
    fn check(&self, operand: &[u8]) -> Result {
        let _ = operand;
        Ok(())
    }
}

/// The operand is appended to the value; an absent value counts as empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Append;

/// Name of [`Append`].
pub(crate) const APPEND: &str = "keybed.append";

impl MergeOperator for Append {
    fn name(&self) -> &str {
        APPEND
    }

    fn merge(&self, existing: Option<&[u8]>, operand: &[u8], out: &mut Vec<u8>) -> Result {
        out.extend_from_slice(existing.unwrap_or_default());
        out.extend_from_slice(operand);
        Ok(())
    }

    fn combine(&self, older: &[u8], newer: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        self.merge(Some(older), newer, out)?;
        Ok(true)
    }
}

fn word(what: &str, bytes: &[u8]) -> Result<[u8; 8]> {
    bytes.try_into().map_err(|_| {
        Error::new(
            Code::MergeFailed,
            format!("the {what} of a sum is not 8 bytes long"),
        )
        .expected_found(8, bytes.len())
    })
}

/// Value and operand are little-endian `i64`; their wrapping sum is the new value. An absent value counts as 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct SumI64;

/// Value and operand are little-endian `u64`; their wrapping sum is the new value. An absent value counts as 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct SumU64;

macro_rules! sum {
    ($operator:ty, $number:ty, $name:literal) => {
        impl MergeOperator for $operator {
            fn name(&self) -> &str {
                $name
            }

            fn merge(&self, existing: Option<&[u8]>, operand: &[u8], out: &mut Vec<u8>) -> Result {
                let old = existing.map_or(Ok([0; 8]), |bytes| word("value", bytes))?;
                let more = word("operand", operand)?;
                let sum = <$number>::from_le_bytes(old).wrapping_add(<$number>::from_le_bytes(more));
                out.extend_from_slice(&sum.to_le_bytes());
                Ok(())
            }

            fn combine(&self, older: &[u8], newer: &[u8], out: &mut Vec<u8>) -> Result<bool> {
                self.merge(Some(older), newer, out)?;
                Ok(true)
            }

            fn check(&self, operand: &[u8]) -> Result {
                word("operand", operand).map(|_| ())
            }
        }
    };
}

sum!(SumI64, i64, "keybed.sum-i64");
sum!(SumU64, u64, "keybed.sum-u64");

/// Gives an operator's error its code and name.
#[cold]
pub(crate) fn failed(operator: &dyn MergeOperator, error: Error) -> Error {
    error.recode(Code::MergeFailed).with("operator", operator.name())
}

/// Folds operands, newest first, onto a base.
///
/// # Errors
/// `MergeFailed` if the operator refuses.
pub(crate) fn fold(
    operator: Option<&dyn MergeOperator>,
    base: Option<&[u8]>,
    newest_first: &[impl AsRef<[u8]>],
) -> Result<Vec<u8>> {
    let operator = operator.ok_or_else(|| {
        Error::new(
            Code::MergeFailed,
            "an operand was met in a family that has no merge operator",
        )
    })?;
    let mut value: Option<Vec<u8>> = None;
    for operand in newest_first.iter().rev() {
        let mut out = Vec::new();
        operator
            .merge(value.as_deref().or(base), operand.as_ref(), &mut out)
            .map_err(|error| failed(operator, error))?;
        value = Some(out);
    }
    Ok(value.unwrap_or_else(|| base.unwrap_or_default().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_sum_refuses_other_widths() {
        assert_eq!(SumI64.check(b"123").unwrap_err().code(), Code::MergeFailed);
        let e = fold(Some(&SumU64), Some(b"1"), &[8_u64.to_le_bytes()]).unwrap_err();
        assert_eq!(e.code(), Code::MergeFailed);
    }

    proptest! {
        #[test]
        fn combined_operands_do_the_same(base: Option<i64>, operands in prop::collection::vec(any::<i64>(), 1..6), split: usize) {
            let base = base.map(i64::to_le_bytes);
            let base = base.as_ref().map(<[u8; 8]>::as_slice);
            let mut operands: Vec<_> = operands.into_iter().map(|n| n.to_le_bytes().to_vec()).collect();
            for operator in [&SumI64 as &dyn MergeOperator, &SumU64, &Append] {
                let expected = fold(Some(operator), base, &operands).unwrap();
                let mut combined = operands.clone();
                if combined.len() > 1 {
                    let at = split % (combined.len() - 1);
                    let older = combined.remove(at + 1);
                    let mut out = Vec::new();
                    prop_assert!(operator.combine(&older, &combined[at], &mut out).unwrap());
                    combined[at] = out;
                }
                prop_assert_eq!(fold(Some(operator), base, &combined).unwrap(), expected);
            }
            operands.clear();
        }
    }
}
