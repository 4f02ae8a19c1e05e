//! Lower-case hexadecimal of the 128-bit ids that appear in file names and on command lines.

use crate::{Error, Result};

/// 32 lower-case digits.
pub fn encode(id: u128) -> String {
    format!("{id:032x}")
}

/// Reads exactly 32 lower-case digits.
///
/// # Errors
/// `InvalidArgument` on any other text.
pub fn decode(text: &str) -> Result<u128> {
    let canonical = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match u128::from_str_radix(text, 16) {
        Ok(id) if canonical => Ok(id),
        _ => Err(Error::invalid("an id is 32 lower-case hexadecimal digits").with("found", text)),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn round_trip_and_refusals() {
        assert_eq!(super::decode(&super::encode(0xabc)).unwrap(), 0xabc);
        for bad in [
            "",
            "ab",
            "+0000000000000000000000000000000",
            "ABCDEF00000000000000000000000000",
        ] {
            assert!(super::decode(bad).is_err(), "{bad}");
        }
    }
}
