//! Text out of a file, up to a limit. A path may name a device or a pipe, which has no size that could be asked for first.

use std::io::{Error, ErrorKind, Read, Result};

/// All of `source`, which must be UTF-8 of at most `most` bytes. No more than that is read.
pub fn text(source: impl Read, most: usize) -> Result<String> {
    let bytes = bytes(source, most)?;
    String::from_utf8(bytes).map_err(|_| Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

/// All of `source`, at most `most` bytes. No more than that is read, but for one byte that shows that there is more.
pub fn bytes(source: impl Read, most: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take((most as u64).saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() > most {
        true => Err(Error::new(ErrorKind::InvalidData, format!("it has more than {most} bytes"))),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_without_end_is_left_at_the_limit() {
        assert_eq!(text("é".as_bytes(), 2).unwrap(), "é");
        assert_eq!(text("éa".as_bytes(), 2).unwrap_err().to_string(), "it has more than 2 bytes");
        assert_eq!(text(std::io::repeat(b'a'), 1 << 20).unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(text(&[0xff][..], 2).unwrap_err().to_string(), "it is not UTF-8");
    }
}
