//! An error and its causes in one line, for people: the AWS SDK's own errors say little more than "service error" by
//! themselves, and pages with their debug texts.

use std::error::Error;

/// The most causes that are followed.
const MOST: usize = 12;

/// The error's text and that of each of its causes, from the outside in, separated by colons. A text that the one before
/// has in it already is left out, and so is "service error", which only says that there is more.
pub fn causes(error: &dyn Error) -> String {
    let mut line = String::new();
    let mut next = Some(error);
    for _ in 0..MOST {
        let Some(error) = next else { break };
        let text = error.to_string();
        if !text.is_empty() && text != "service error" && !line.contains(&text) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&text);
        }
        next = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Link(&'static str, #[source] Option<Box<Link>>);

    fn chain(texts: &[&'static str]) -> Link {
        let (first, rest) = texts.split_first().unwrap();
        Link(first, (!rest.is_empty()).then(|| Box::new(chain(rest))))
    }

    #[test]
    fn causes_are_told_once_and_without_what_says_nothing() {
        assert_eq!(causes(&chain(&["service error", "NoSuchBucket: gone", "gone"])), "NoSuchBucket: gone");
        assert_eq!(causes(&chain(&["dispatch failure", "io error", "refused"])), "dispatch failure: io error: refused");
    }
}
