//! What stands behind the question mark of a request.
//!
//! A handler names the parameters that it takes and gets their texts in the same order. Any other one is refused by its
//! name, and so is one that is there twice: a parameter that is misspelt, or that belongs to another operation, would
//! otherwise be left out without a word, and something else be done than was asked for.

#![expect(clippy::result_large_err, reason = "an error here is the finished answer")]

use std::str::FromStr;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::response::Response;
use qunlong_core::{Duration, limits};

use super::error::bad_request;

/// All of a request's parameters: names and texts.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// The texts of those that an operation takes.
    ///
    /// # Errors
    ///
    /// If there is another one, or one twice.
    pub(super) fn of<const N: usize>(self, names: [&str; N]) -> Result<[Option<String>; N], Response> {
        let mut texts: [Option<String>; N] = std::array::from_fn(|_| None);
        for (name, text) in self.0 {
            let Some(at) = names.iter().position(|known| *known == name) else {
                return Err(bad_request(&format!("there is no parameter {name} here; there are {}", names.join(", "))));
            };
            if texts[at].replace(text).is_some() {
                return Err(bad_request(&format!("the parameter {name} is there twice")));
            }
        }
        Ok(texts)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        match Query::<Vec<(String, String)>>::try_from_uri(&parts.uri) {
            Ok(Query(pairs)) => Ok(Self(pairs)),
            Err(problem) => Err(bad_request(&problem.body_text())),
        }
    }
}

/// A number, if there is one. `what` says what it is, for whoever writes something else.
pub(super) fn number<T: FromStr>(name: &str, text: Option<&str>, what: &str) -> Result<Option<T>, Response> {
    let Some(text) = text else { return Ok(None) };
    text.parse().map(Some).map_err(|_| bad_request(&format!("{name} is {what}, and not {text:?}")))
}

/// The deadline that a request asks for: its parameter `timeout`.
pub(super) fn within(timeout: Option<&str>) -> Result<Option<Duration>, Response> {
    let timeout: Option<u64> = number("timeout", timeout, MILLISECONDS)?;
    Ok(timeout.map(|ms| Duration::millis(ms.min(limits::DEADLINE_MAX.as_millis()))))
}

/// How many entries a page is to have at most: the parameter `limit` of a listing.
pub(super) fn page_size(limit: Option<&str>) -> Result<u32, Response> {
    let limit: Option<u64> = number("limit", limit, "a whole number of keys")?;
    let limit = limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(limits::LIST_KEYS);
    Ok(limit.min(limits::LIST_KEYS))
}

/// What times are given in.
pub(super) const MILLISECONDS: &str = "a whole number of milliseconds";

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::http::{Request, StatusCode};

    use super::*;

    async fn of<const N: usize>(query: &str, names: [&str; N]) -> Result<[Option<String>; N], Response> {
        let request = Request::get(format!("/v1/kv?{query}")).body(()).expect("a request");
        Parameters::from_request_parts(&mut request.into_parts().0, &()).await?.of(names)
    }

    /// Checks that it is refused and that the message has all of these in it.
    async fn check_refused<T>(result: Result<T, Response>, says: &[&str]) {
        let Err(response) = result else { panic!("it is taken, though {says:?}") };
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let told = to_bytes(response.into_body(), usize::MAX).await.expect("it is there");
        let told = String::from_utf8_lossy(&told);
        assert!(told.contains("\"BAD_REQUEST\""), "{told}");
        says.iter().for_each(|part| assert!(told.contains(part), "{part} is not in {told}"));
    }

    #[tokio::test]
    async fn parameters_come_in_the_order_in_which_they_are_named() {
        let [r, namespace, timeout] =
            of("timeout=5&r=a%26b", ["r", "namespace", "timeout"]).await.map_err(drop).expect("both are known");
        assert_eq!((r.as_deref(), namespace, timeout.as_deref()), (Some("a&b"), None, Some("5")));
    }

    #[tokio::test]
    async fn a_parameter_that_is_not_taken_is_refused_by_its_name() {
        check_refused(of("r=1", ["prefix", "limit"]).await, &["no parameter r here", "prefix, limit"]).await;
        check_refused(of("prefix=a&prefix=b", ["prefix"]).await, &["prefix is there twice"]).await;
        check_refused(of("limit", []).await, &["no parameter limit here"]).await;
    }

    #[tokio::test]
    async fn what_is_no_number_is_told_with_its_name_and_what_is_expected() {
        assert_eq!(within(Some("5")).ok(), Some(Some(Duration::millis(5))));
        assert_eq!(within(Some("999999999")).ok(), Some(Some(limits::DEADLINE_MAX)));
        assert_eq!(within(None).ok(), Some(None));
        for text in ["soon", "", "-1", "1.5"] {
            check_refused(within(Some(text)), &["timeout is a whole number of milliseconds"]).await;
        }
        check_refused(page_size(Some("all")), &["limit is a whole number", "all"]).await;
        check_refused(number::<i64>("increment", Some("9e9"), "a number"), &["increment is a number"]).await;
    }

    #[test]
    fn a_page_is_no_larger_than_the_limit() {
        let sizes = ["1", "256", "257", "5000000000"].map(|limit| page_size(Some(limit)).ok());
        assert_eq!(sizes, [Some(1), Some(256), Some(256), Some(256)]);
        assert_eq!(page_size(None).ok(), Some(limits::LIST_KEYS));
    }
}
