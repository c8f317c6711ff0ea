//! The `aws-chunked` coding that SDKs wrap uploads in, taken off.
//!
//! ```text
//! body    = chunk* last
//! chunk   = hex-size [";" extension] CRLF data CRLF        extension: chunk-signature=…, not verified
//! last    = "0" [";" extension] CRLF (name ":" value CRLF)* CRLF
//! ```
//!
//! The lines after the last chunk are trailers: SDKs put the checksum there that the store then verifies.
//! (S3 API, "Signature calculations for the Authorization header: transferring payload in multiple chunks".)

use std::sync::{Arc, Mutex};

use bytes::{Buf as _, Bytes, BytesMut};
use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue};
use s3s::StdError;

/// Longest line: a size with a signature, or a trailer. Bytes.
const MAX_LINE_BYTES: usize = 8 << 10;

/// Most trailers of a body.
const MAX_TRAILERS: usize = 32;

/// The trailers of a body; there when the body was read to its end.
pub type Trailers = Arc<Mutex<Option<HeaderMap>>>;

/// Why a body is not `aws-chunked`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// A line that should be a chunk's size is not.
    #[error("a chunk does not start with its size")]
    Size,
    /// A chunk is not followed by CRLF.
    #[error("a chunk is longer than its size")]
    Overrun,
    /// A line without end.
    #[error("a line is longer than {MAX_LINE_BYTES} bytes")]
    Line,
    /// A trailer that is no header.
    #[error("a trailer is malformed")]
    Trailer,
    /// The body ended inside.
    #[error("the body ends before its last chunk")]
    Truncated,
    /// More or less data than `x-amz-decoded-content-length` says.
    #[error("the body has {actual} bytes and not the {announced} announced")]
    Length {
        /// By the header.
        announced: u64,
        /// Decoded.
        actual: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

/// Takes the coding off, piece by piece.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    pending: BytesMut,
    trailers: HeaderMap,
    announced: Option<u64>,
    actual: u64,
}

impl Decoder {
    /// `announced`: the decoded length in bytes, where the request says it.
    pub fn new(announced: Option<u64>) -> Self {
        Decoder { state: State::Size, pending: BytesMut::new(), trailers: HeaderMap::new(), announced, actual: 0 }
    }

    /// Takes encoded bytes and gives the data in them. Cuts nothing twice: a large chunk comes out as it came in.
    ///
    /// # Errors
    /// When the bytes are not in the coding.
    pub fn feed(&mut self, input: &[u8]) -> Result<Vec<Bytes>, ChunkError> {
        self.pending.extend_from_slice(input);
        let mut data = Vec::new();
        loop {
            match self.state {
                State::Size => {
                    let Some(line) = self.line()? else { break };
                    let digits = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
                    let size = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'));
                    let size = size.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or(ChunkError::Size)?;
                    self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                }
                State::Data(left) => {
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(self.pending.len());
                    if take == 0 {
                        break;
                    }
                    let taken = take as u64; // usize is at most 64 bits
                    data.push(self.pending.split_to(take).freeze());
                    self.actual = self.actual.saturating_add(taken);
                    self.state = if taken == left { State::DataEnd } else { State::Data(left - taken) };
                }
                State::DataEnd => {
                    if self.pending.len() < 2 {
                        break;
                    }
                    if !self.pending.starts_with(b"\r\n") {
                        return Err(ChunkError::Overrun);
                    }
                    self.pending.advance(2);
                    self.state = State::Size;
                }
                State::Trailers => {
                    let Some(line) = self.line()? else { break };
                    if line.is_empty() {
                        self.state = State::Done;
                    } else {
                        self.trailer(&line)?;
                    }
                }
                State::Done => break,
            }
        }
        Ok(data)
    }

    /// The trailers, once the input has ended.
    ///
    /// # Errors
    /// When it ended too early or has another length than announced.
    pub fn finish(&mut self) -> Result<HeaderMap, ChunkError> {
        // Some clients leave the empty line out when there are no trailers.
        if self.state != State::Done && !(self.state == State::Trailers && self.pending.is_empty()) {
            return Err(ChunkError::Truncated);
        }
        match self.announced {
            Some(announced) if announced != self.actual => Err(ChunkError::Length { announced, actual: self.actual }),
            _ => Ok(std::mem::take(&mut self.trailers)),
        }
    }

    /// The next line without its end, when it is there.
    fn line(&mut self) -> Result<Option<Bytes>, ChunkError> {
        let Some(end) = self.pending.windows(2).take(MAX_LINE_BYTES).position(|two| two == b"\r\n") else {
            return if self.pending.len() > MAX_LINE_BYTES { Err(ChunkError::Line) } else { Ok(None) };
        };
        let line = self.pending.split_to(end).freeze();
        self.pending.advance(2);
        Ok(Some(line))
    }

    fn trailer(&mut self, line: &[u8]) -> Result<(), ChunkError> {
        let colon = line.iter().position(|b| *b == b':').ok_or(ChunkError::Trailer)?;
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        let name = HeaderName::from_bytes(name.trim_ascii()).map_err(|_| ChunkError::Trailer)?;
        let value = HeaderValue::from_bytes(value).map_err(|_| ChunkError::Trailer)?;
        if self.trailers.len() >= MAX_TRAILERS {
            return Err(ChunkError::Trailer);
        }
        self.trailers.insert(name, value);
        Ok(())
    }
}

/// Takes the coding off a body as it streams by; puts the trailers into `trailers` at its end.
pub fn decode(
    body: impl Stream<Item = Result<Bytes, StdError>> + Send + 'static,
    announced: Option<u64>,
    trailers: Trailers,
) -> BoxStream<'static, Result<Bytes, StdError>> {
    let start = Some((body.boxed(), Decoder::new(announced), trailers));
    stream::try_unfold(start, |state| async move {
        let Some((mut body, mut decoder, trailers)) = state else { return Ok::<_, StdError>(None) };
        match body.next().await {
            Some(input) => {
                let data = decoder.feed(&input?)?;
                Ok(Some((data, Some((body, decoder, trailers)))))
            }
            None => {
                let found = decoder.finish()?;
                if let Ok(mut place) = trailers.lock() {
                    *place = Some(found);
                }
                Ok(Some((Vec::new(), None)))
            }
        }
    })
    .flat_map(|step| match step {
        Ok(data) => stream::iter(data.into_iter().map(Ok).collect::<Vec<_>>()),
        Err(e) => stream::iter(vec![Err(e)]),
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(decoder: &mut Decoder, pieces: &[&[u8]]) -> Result<(Vec<u8>, HeaderMap), ChunkError> {
        let mut data = Vec::new();
        for piece in pieces {
            data.extend(decoder.feed(piece)?.into_iter().flatten());
        }
        Ok((data, decoder.finish()?))
    }

    #[test]
    fn unsigned_with_a_trailer() {
        let body = b"5\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n";
        let (data, trailers) = all(&mut Decoder::new(Some(11)), &[body]).unwrap();
        assert_eq!(data, b"hello world");
        assert_eq!(trailers["x-amz-checksum-crc32"], "DUoRhQ==");
    }

    #[test]
    fn signed_chunks() {
        let body = b"a;chunk-signature=00ff\r\n0123456789\r\n0;chunk-signature=aa\r\n\r\n";
        assert_eq!(all(&mut Decoder::new(None), &[body]).unwrap().0, b"0123456789");
    }

    #[test]
    fn malformed_bodies_are_told_apart() {
        let table: &[(&[u8], Option<u64>, ChunkError)] = &[
            (b"", None, ChunkError::Truncated),
            (b"5\r\nhel", None, ChunkError::Truncated),
            (b"5\r\nhello\r\n", None, ChunkError::Truncated),
            (b"0\r\nx: y\r\nz", None, ChunkError::Truncated),
            (b"x\r\n", None, ChunkError::Size),
            (b"+5\r\nhello\r\n", None, ChunkError::Size),
            (b"fffffffffffffffff\r\n", None, ChunkError::Size),
            (b"2\r\nhello\r\n0\r\n\r\n", None, ChunkError::Overrun),
            (b"0\r\nno colon\r\n\r\n", None, ChunkError::Trailer),
            (b"1\r\nx\r\n0\r\n\r\n", Some(2), ChunkError::Length { announced: 2, actual: 1 }),
        ];
        for (body, announced, error) in table {
            assert_eq!(all(&mut Decoder::new(*announced), &[body]).unwrap_err(), *error, "{body:?}");
        }
        assert_eq!(Decoder::new(None).feed(&[b'0'; 9_000]).unwrap_err(), ChunkError::Line);
    }

    proptest::proptest! {
        #[test]
        fn the_cut_of_the_input_does_not_matter(
            chunks in proptest::collection::vec(proptest::collection::vec(proptest::num::u8::ANY, 1..40), 0..6),
            cut in 1usize..20,
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend(format!("{:x}\r\n", chunk.len()).bytes());
                body.extend(chunk);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\nx-amz-t:v\r\n\r\n");
            let pieces: Vec<&[u8]> = body.chunks(cut).collect();
            let (data, trailers) = all(&mut Decoder::new(None), &pieces).unwrap();
            proptest::prop_assert_eq!(data, chunks.concat());
            proptest::prop_assert_eq!(&trailers["x-amz-t"], "v");
        }

        #[test]
        fn no_input_panics(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let mut decoder = Decoder::new(Some(3));
            let _ = decoder.feed(&body).and_then(|_| decoder.finish());
        }
    }
}
