//! Reading the examples of the format pages, which the code must write byte for byte.

/// Bytes of the n-th block of hexadecimal digits of a page: `offset: bytes | what they are`.
pub(crate) fn example(page: &str, nth: usize) -> Vec<u8> {
    let block = page
        .split("```hex\n")
        .nth(nth + 1)
        .and_then(|rest| rest.split("```").next());
    let mut bytes = Vec::new();
    for line in block.expect("the page has an example").lines() {
        let (offset, rest) = line.split_once(':').expect("a line opens with its offset");
        assert_eq!(
            usize::from_str_radix(offset.trim(), 16).ok(),
            Some(bytes.len()),
            "{line}"
        );
        let digits = rest.split('|').next().unwrap_or_default().split_whitespace();
        bytes.extend(digits.map(|d| u8::from_str_radix(d, 16).expect("two digits")));
    }
    bytes
}

#[track_caller]
pub(crate) fn assert_as_on_page(written: &[u8], page: &str, nth: usize) {
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        hex(written),
        hex(&example(page, nth)),
        "the bytes changed: a new format version is due"
    );
}
