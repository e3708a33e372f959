//! `GET /v1/openapi.json`: the interface, described for programs.
//!
//! The description is written by hand. It cannot fall behind: the tests here compare it with the list that the router
//! is made of, and with the codes and limits of the program; `xtask/tests/openapi.rs` compares it with what a running
//! server answers.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

const DESCRIPTION: &str = include_str!("../../openapi.json");

pub(super) async fn show() -> Response {
    ([(CONTENT_TYPE, "application/json")], DESCRIPTION).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use qunlong_core::{Refusal, limits};
    use serde_json::{Value, json};

    use super::super::ROUTES;
    use super::DESCRIPTION;

    fn description() -> Value {
        serde_json::from_str(DESCRIPTION).expect("it is JSON")
    }

    fn codes(schema: &str) -> BTreeSet<String> {
        let description = description();
        let codes = description["components"]["schemas"][schema]["enum"].as_array().expect("a list of codes");
        codes.iter().map(|code| code.as_str().expect("a code is text").to_owned()).collect()
    }

    fn owned<'a>(codes: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
        codes.into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        // A WebSocket is asked for with GET; its handler refuses what else arrives there.
        let routed = ROUTES.iter().map(|&(method, path)| match method {
            "any" => ("get".to_owned(), path.replace("{*", "{")),
            method => (method.to_owned(), path.replace("{*", "{")),
        });
        let routed: BTreeSet<(String, String)> = routed.collect();
        let description = description();
        let mut described = BTreeSet::new();
        for (path, item) in description["paths"].as_object().expect("paths") {
            let methods = item.as_object().expect("a path is an object").keys().filter(|key| *key != "parameters");
            described.extend(methods.map(|method| (method.clone(), path.clone())));
        }
        assert_eq!(described, routed);
        // One writes the list, the other catches what is not in it.
        assert_eq!(include_str!("mod.rs").matches(".route(").count(), 2, "a route beside the list is not described");
    }

    #[test]
    fn every_refusal_is_described_by_its_code() {
        assert_eq!(codes("RefusalCode"), owned(Refusal::CODES));
    }

    /// Codes are written where they are told, as text that nothing else looks like.
    #[test]
    fn every_code_that_the_handlers_write_is_described() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
        let mut written = BTreeSet::new();
        for entry in fs::read_dir(folder).expect("the source is there") {
            let text = fs::read_to_string(entry.expect("readable").path()).expect("readable");
            let code = text.split("\nmod tests {").next().expect("a first part");
            let is_code =
                |piece: &&str| piece.len() > 2 && piece.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
            written.extend(owned(code.split('"').filter(is_code).filter(|piece| *piece != "CARGO_PKG_VERSION")));
        }
        let of_the_core = owned(Refusal::CODES);
        let of_the_server: BTreeSet<String> = written.difference(&of_the_core).cloned().collect();
        assert_eq!(codes("ServerCode"), of_the_server);
    }

    #[test]
    fn limits_are_described_as_they_are() {
        let description = description();
        let is = |pointer: &str, value: Value| assert_eq!(description.pointer(pointer), Some(&value), "{pointer}");
        is("/info/version", json!(env!("CARGO_PKG_VERSION")));
        is("/components/schemas/Key/maxLength", json!(limits::KEY_BYTES));
        is("/components/schemas/PageSize/maximum", json!(limits::LIST_KEYS));
        is("/components/schemas/PageSize/default", json!(limits::LIST_KEYS));
        is("/components/schemas/KeyPage/properties/keys/maxItems", json!(limits::LIST_KEYS));
        is("/components/schemas/RegisterPage/properties/keys/maxItems", json!(limits::LIST_KEYS));
        is("/components/parameters/Timeout/schema/maximum", json!(limits::DEADLINE_MAX.as_millis()));
        is("/components/schemas/Replicas/maximum", json!(limits::REPLICAS));
        is("/components/schemas/Weight/maximum", json!(limits::WEIGHT));
        is("/components/schemas/NamespaceName/maxLength", json!(limits::NAMESPACE_BYTES));
        is("/components/schemas/Change/properties/steps/maxItems", json!(limits::STORAGE_MEMBERS));
        for pointer in ["/paths/~1v1~1kv~1{key}/put", "/paths/~1v1~1registers~1{key}/put"] {
            let told = description.pointer(pointer).and_then(|put| put["requestBody"]["description"].as_str());
            assert_eq!(told, Some("The value, at most 65,536 bytes."), "{pointer}");
        }
        assert_eq!(limits::VALUE_BYTES, 65_536);
    }
}
