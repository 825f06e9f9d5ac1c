//! How deep a value may be nested: what is written must be readable again.

use crate::error::Error;

/// `serde_json` reads no deeper.
const DEEPEST: usize = 127;

/// Refuses a field's JSON text that could not be read again.
pub(crate) fn check_depth(name: &[u8], json: &[u8]) -> Result<(), Error> {
    match is_too_deep(json) {
        true => Err(Error::field(name, "is nested deeper than 127 levels, and could not be read again")),
        false => Ok(()),
    }
}

/// Whether a JSON text that `serde_json` wrote is one that it refuses to read.
fn is_too_deep(json: &[u8]) -> bool {
    // Most texts have too few brackets, whatever is in them. Each level has two.
    let may_be = json.len() > 2 * DEEPEST && json.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() > DEEPEST;
    may_be && depth(json) > DEEPEST
}

fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut text) = (0_usize, 0, false);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            // What it escapes is no end of the text.
            b'\\' => drop(bytes.next()),
            b'"' => text = !text,
            b'[' | b'{' if !text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn what_is_too_deep_is_what_cannot_be_read_again() {
        for levels in [0, 1, 126, 127, 128, 129, 1_000] {
            for (open, close) in [("[", "]"), (r#"{"a]\"":"#, "}")] {
                let text = format!("{}1{}", open.repeat(levels), close.repeat(levels));
                let can_be_read = serde_json::from_str::<Value>(&text).is_ok();
                assert_eq!(is_too_deep(text.as_bytes()), !can_be_read, "{levels} levels of {open}");
            }
        }
    }

    #[test]
    fn brackets_beside_each_other_and_in_texts_are_not_deep() {
        for text in [format!("[{}1]", "[],".repeat(1_000)), format!("{:?}", "[\"{\\".repeat(1_000))] {
            assert!(serde_json::from_str::<Value>(&text).is_ok() && !is_too_deep(text.as_bytes()));
        }
    }
}
