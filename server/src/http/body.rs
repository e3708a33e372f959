//! The body of a request: no larger than what it is for, and in the form that it is for.

use std::error::Error;

use axum::body::{Body, Bytes as RawBytes, to_bytes};
use axum::response::Response;
use http_body_util::LengthLimitError;
use qunlong_core::{Bytes, Refusal, limits};
use serde::de::DeserializeOwned;

use super::error::{bad_request, refused};

/// A value is the raw body.
pub(super) async fn value_of(body: Body) -> Result<Bytes, Response> {
    let bytes = bytes_of(body, limits::VALUE_BYTES).await?;
    Ok(Bytes::from(&bytes[..]))
}

/// A body of JSON. `form` says how it looks, for whoever sends another one.
pub(super) async fn json_of<T: DeserializeOwned>(body: Body, limit: usize, form: &str) -> Result<T, Response> {
    let bytes = bytes_of(body, limit).await?;
    serde_json::from_slice(&bytes).map_err(|problem| bad_request(&format!("{problem}; {form}")))
}

/// All of a body that is of at most `limit` bytes. No more than that is ever held.
async fn bytes_of(body: Body, limit: usize) -> Result<RawBytes, Response> {
    to_bytes(body, limit).await.map_err(|problem| {
        if problem.source().is_some_and(<dyn Error>::is::<LengthLimitError>) {
            refused(&Refusal::TooLarge { limit: limit as u32 })
        } else {
            bad_request(&format!("the body does not come whole: {problem}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use axum::http::StatusCode;
    use futures::stream;
    use serde_json::Value;

    use super::*;

    /// What is made of a body that comes in these pieces.
    async fn check(limit: usize, pieces: Vec<io::Result<&'static str>>) -> Result<Value, (StatusCode, String)> {
        let read = json_of(Body::from_stream(stream::iter(pieces)), limit, "a body is {}").await;
        match read {
            Ok(value) => Ok(value),
            Err(response) => {
                let status = response.status();
                let told = to_bytes(response.into_body(), usize::MAX).await.expect("it is there");
                Err((status, String::from_utf8_lossy(&told).into_owned()))
            }
        }
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_and_one_that_breaks_off_are_told_apart() {
        assert_eq!(check(4, vec![Ok("[1"), Ok("2]")]).await, Ok(serde_json::json!([12])), "just as large as it may be");
        let (status, told) = check(4, vec![Ok("[1"), Ok("23]")]).await.expect_err("a byte too much");
        assert!(status == StatusCode::PAYLOAD_TOO_LARGE && told.contains("\"TOO_LARGE\""), "{status} {told}");
        assert!(told.contains("the limit of 4 bytes"), "{told}");
        let (status, told) = check(4, vec![Ok("[1"), Err(io::Error::other("gone"))]).await.expect_err("half of it");
        assert!(status == StatusCode::BAD_REQUEST && told.contains("\"BAD_REQUEST\""), "{status} {told}");
        assert!(told.contains("does not come whole: gone"), "{told}");
    }

    #[tokio::test]
    async fn a_body_of_another_form_is_told_the_form() {
        let (status, told) = check(9, vec![Ok("1 2")]).await.expect_err("it is not JSON");
        assert!(status == StatusCode::BAD_REQUEST && told.contains("; a body is {}"), "{status} {told}");
    }
}
