//! Takes signature and transfer coding off a request: any credentials do.
//!
//! To verify a signature one must know the secret, and local mode takes every secret. So nothing is verified, and
//! nothing pretends to be: header and query signatures go away unread, and `s3s` sees an anonymous request. What the
//! signature protected on the wire, the body's integrity, is still checked by every checksum that the client sends.
//! (The expiry of a presigned URL is not checked either.)

use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Uri};
use http_body_util::StreamBody;
use hyper::body::Frame;
use s3s::Body;

use futures::TryStreamExt as _;

use super::chunked::{Trailers, decode};

const SIGNED_QUERY: [&str; 10] = [
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-signedheaders",
    "x-amz-signature",
    "x-amz-security-token",
    "signature",
    "awsaccesskeyid",
    "expires",
];

/// Makes a signed, perhaps `aws-chunked` request a plain one. The trailers will be in the extension [`Trailers`].
pub fn unsign(request: Request<Body>) -> Request<Body> {
    let (mut parts, mut body) = request.into_parts();
    parts.headers.remove(AUTHORIZATION);
    if let Some(uri) = without_signature(&parts.uri) {
        parts.uri = uri;
    }

    let sha = parts.headers.get("x-amz-content-sha256").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let codings = parts.headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let rest: Vec<&str> =
        codings.split(',').map(str::trim).filter(|c| !c.is_empty() && !c.eq_ignore_ascii_case("aws-chunked")).collect();
    if !sha.starts_with("STREAMING-") && !codings.to_ascii_lowercase().contains("aws-chunked") {
        return Request::from_parts(parts, body);
    }
    let rest = (!rest.is_empty()).then(|| HeaderValue::from_str(&rest.join(", ")).ok()).flatten();
    match rest {
        Some(rest) => parts.headers.insert(CONTENT_ENCODING, rest),
        None => parts.headers.remove(CONTENT_ENCODING),
    };
    parts.headers.remove("x-amz-content-sha256");
    parts.headers.remove(TRANSFER_ENCODING);
    let announced = parts.headers.remove("x-amz-decoded-content-length");
    let bytes = announced.as_ref().and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    match announced.filter(|_| bytes.is_some()) {
        Some(length) => parts.headers.insert(CONTENT_LENGTH, length),
        None => parts.headers.remove(CONTENT_LENGTH),
    };
    let trailers = Trailers::default();
    parts.extensions.insert(trailers.clone());
    let decoded = decode(body, bytes, trailers).map_ok(Frame::data);
    body = Body::http_body_unsync(StreamBody::new(decoded));
    Request::from_parts(parts, body)
}

/// The URI without the parameters of a presigned URL, where it has them.
fn without_signature(uri: &Uri) -> Option<Uri> {
    let name = |pair: &&str| pair.split('=').next().unwrap_or_default().to_ascii_lowercase();
    let query = uri.query()?;
    if !query.split('&').any(|pair| matches!(name(&pair).as_str(), "x-amz-signature" | "signature")) {
        return None;
    }
    let kept: Vec<&str> = query.split('&').filter(|pair| !SIGNED_QUERY.contains(&name(pair).as_str())).collect();
    let path = uri.path();
    let text = if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(text.parse::<PathAndQuery>().ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presigned_parameters_go_and_others_stay() {
        let table = [
            ("/b/k?X-Amz-Algorithm=A&X-Amz-Signature=s&X-Amz-Expires=9&x-id=GetObject", Some("/b/k?x-id=GetObject")),
            ("/b/k?X-Amz-Signature=s", Some("/b/k")),
            ("/b/k?AWSAccessKeyId=a&Signature=b&Expires=1", Some("/b/k")),
            ("/b?list-type=2&prefix=a%2Fb", None),
            ("/b/k", None),
        ];
        for (uri, expected) in table {
            let found = without_signature(&uri.parse().unwrap()).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), expected, "{uri}");
        }
    }

    #[tokio::test]
    async fn aws_chunked_becomes_plain() {
        let request = Request::builder()
            .uri("/b/k")
            .header(AUTHORIZATION, "AWS4-HMAC-SHA256 …")
            .header("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
            .header(CONTENT_ENCODING, "gzip, aws-chunked")
            .header("x-amz-decoded-content-length", "5")
            .body(Body::from(b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n".to_vec()))
            .unwrap();
        let mut plain = unsign(request);
        assert_eq!(plain.headers()[CONTENT_ENCODING], "gzip");
        assert_eq!(plain.headers()[CONTENT_LENGTH], "5");
        assert!(!plain.headers().contains_key(AUTHORIZATION));
        assert_eq!(plain.body_mut().store_all_limited(100).await.unwrap(), "hello");
        let trailers = plain.extensions().get::<Trailers>().unwrap().lock().unwrap().take().unwrap();
        assert_eq!(trailers["x-amz-checksum-crc32"], "NhCmhg==");
    }
}
