//! Requests that are to become WebSockets.

use axum::extract::FromRequestParts;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::header::{CONNECTION, SEC_WEBSOCKET_VERSION, UPGRADE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use qunlong_core::limits;

use super::error::error;

/// One that asks for a WebSocket as it should.
pub(super) struct Upgrade(pub(super) WebSocketUpgrade);

impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        match <WebSocketUpgrade as FromRequestParts<S>>::from_request_parts(parts, state).await {
            Ok(upgrade) => Ok(Self(limited(upgrade))),
            Err(rejection) => Err(rejected(&parts.method, rejection)),
        }
    }
}

/// The library's own limits are far too large.
fn limited(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade
        .max_message_size(limits::FRAME_BYTES)
        .max_frame_size(limits::FRAME_BYTES)
        .max_write_buffer_size(4 * limits::FRAME_BYTES)
}

/// RFC 9110, §15.5.22, for the status and `upgrade`, §7.8 for `connection`; RFC 6455, §4.4, for the version.
fn rejected(method: &Method, rejection: WebSocketUpgradeRejection) -> Response {
    // Any other method wants something else, which there is not.
    if method != Method::GET && method != Method::CONNECT {
        return rejection.into_response();
    }
    let message = format!(
        "this is a WebSocket of version 13; over HTTP/1.1 it is asked for with GET, connection: upgrade and \
         upgrade: websocket, over HTTP/2 with CONNECT; {}",
        rejection.body_text()
    );
    let mut response = error(StatusCode::UPGRADE_REQUIRED, "UPGRADE_REQUIRED", &message);
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    async fn check(method: &Method, headers: &[(&str, &str)], expected: StatusCode) {
        let request = Request::builder().method(method).uri("/v1/link");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let (mut parts, ()) = request.body(()).expect("a request").into_parts();
        let response = Upgrade::from_request_parts(&mut parts, &()).await.err().expect("nothing can be upgraded here");
        assert_eq!(response.status(), expected, "{method} {headers:?}");
        let told = response.headers().get(UPGRADE).is_some_and(|upgrade| upgrade == "websocket");
        assert_eq!(told, expected == StatusCode::UPGRADE_REQUIRED, "{method} {headers:?}");
    }

    #[tokio::test]
    async fn what_asks_for_no_websocket_is_told_how_to() {
        let upgrade = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "c2FtcGxlIG5vbmNl")];
        check(&Method::GET, &[], StatusCode::UPGRADE_REQUIRED).await;
        check(&Method::GET, &upgrade, StatusCode::UPGRADE_REQUIRED).await;
        check(&Method::GET, &[&upgrade[..], &[("sec-websocket-version", "8")]].concat(), StatusCode::UPGRADE_REQUIRED)
            .await;
        check(&Method::POST, &upgrade, StatusCode::METHOD_NOT_ALLOWED).await;
    }
}
