//! The description of the HTTP interface, `server/openapi.json`, against servers that run.
//!
//! The file drives the test: every operation in it is called with the file's own examples, and what is answered must
//! be described there, status, headers, kind and body, with nothing beside. That no route is missing in the file is
//! for the tests in `server/src/http/openapi.rs` to see.
//!
//! - An `example` of a parameter is sent with every call of its operation.
//! - The name of one of several `examples` names a call: those of one name, of parameters, bodies and answers, belong
//!   together. Names are taken from what stands at the operation itself, not from what it refers to.
//! - The answer that has an example of the call's name is the one that is expected, with the same code if it is an
//!   error; where none has, any that is good.
//! - The ids in the file are nobody's; real ones are sent in their place.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::LazyLock;
use std::time::Duration;

use jsonschema::Draft;
use serde_json::{Value, json};
use support::cluster::{Cluster, Shape, agent, read, wait_for};
use support::demo::Demo;
use tokio_tungstenite::tungstenite;

const TEXT: &str = include_str!("../../server/openapi.json");

static FILE: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(TEXT).expect("it is JSON"));

/// In the order in which they are called: what is written is then there to be read, and goes in the end.
const METHODS: [&str; 4] = ["put", "post", "get", "delete"];

/// What a call may be answered for a while, because of what was done before it: it is made again.
const PASSING: [u16; 3] = [409, 503, 504];
const PATIENCE: Duration = Duration::from_secs(30);

/// A call that servers alone cannot grant: only the page of a tab says farewell. `hybrid.rs` closes one.
const ELSEWHERE: (&str, &str) = ("/v1/members/{id}/farewell", "closing");
/// Comes last: it needs a majority to be lost.
const RECOVERIES: &str = "/v1/topology/recoveries";

/// One path and method of the file.
struct Operation {
    method: &'static str,
    path: &'static str,
    parameters: Vec<&'static Value>,
    what: &'static Value,
}

/// What a server said. The body of a stream is not waited for.
struct Answer {
    status: u16,
    headers: http::HeaderMap,
    body: String,
}

/// A server, and who is meant by the file's ids there.
struct Server {
    address: String,
    ids: Vec<(&'static str, String)>,
}

#[test]
fn the_description_hangs_together() {
    let mut references = BTreeSet::new();
    collect_references(&FILE, &mut references);
    for reference in &references {
        assert!(pointed_at(reference).is_some(), "{reference} leads nowhere");
    }
    for (kind, components) in FILE["components"].as_object().expect("components") {
        for name in components.as_object().expect("named").keys() {
            let reference = format!("#/components/{kind}/{name}");
            assert!(references.contains(reference.as_str()), "nothing refers to {reference}");
        }
    }
    let mut names = BTreeSet::new();
    for operation in operations() {
        let name = operation.what["operationId"].as_str().expect("a name");
        assert!(names.insert(name), "{name} is there twice");
        let mut described = BTreeSet::new();
        for parameter in operation.parameters.iter().copied().map(resolved) {
            let name = parameter["name"].as_str().expect("a name");
            check_examples(&format!("{operation}, {name}"), parameter);
            if parameter["in"] == "path" {
                assert_eq!(parameter["required"], true, "{operation}: {name} is required, for it stands in the path");
                described.insert(name);
            }
        }
        let in_path = operation.path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
        assert_eq!(described, in_path.collect::<BTreeSet<&str>>(), "{operation}");
        for (_, media) in contents(&operation.what["requestBody"]) {
            check_examples(&format!("the body of {operation}"), media);
        }
        for (status, response) in operation.responses() {
            for (_, media) in contents(response) {
                check_examples(&format!("{operation}, {status}"), media);
            }
        }
    }
}

#[test]
fn every_operation_answers_as_it_is_described() {
    xtask::build_server().expect("the server builds");
    let demo = Demo::start(5, None);
    let server = Server::new(demo.nodes().next().expect("five nodes"));
    for operation in operations() {
        server.send_too_much(&operation);
    }
    let (last, others): (Vec<_>, Vec<_>) = operations().partition(|operation| operation.path == RECOVERIES);
    for operation in &others {
        server.try_all(operation);
    }
    let told = server.fetch("/v1/openapi.json");
    assert_eq!(told, *FILE);

    wait_for("rest", PATIENCE, || server.fetch("/v1/topology")["state"] == "settled");
    for name in ["n3", "n4", "n5"] {
        let killed = read(agent().post(server.url(&format!("/v1/demo/nodes/{name}/kill"))).send_empty());
        assert_eq!(killed.expect("an answer").0, 200);
    }
    wait_for("the dead to be known", PATIENCE, || {
        let topology = server.fetch("/v1/topology");
        topology["seats"].as_array().into_iter().flatten().filter(|seat| seat["alive"] == true).count() == 2
    });
    for operation in &last {
        server.try_all(operation);
    }
    assert!(demo.stop(), "Ctrl-C ends it well");
}

#[test]
fn what_is_not_described_is_refused() {
    xtask::build_server().expect("the server builds");
    let cluster = Cluster::forming(&Shape { nodes: 1, owners: 1, replicas: 1, more: &[], web: None, proxied: None });
    let node = &cluster.nodes[0];
    wait_for("the node", PATIENCE, || node.status().is_some());
    let server = Server { address: node.address.clone(), ids: Vec::new() };
    for (path, item) in FILE["paths"].as_object().expect("paths") {
        let described: BTreeSet<&str> = METHODS.into_iter().filter(|&method| item.get(method).is_some()).collect();
        let other = METHODS.into_iter().chain(["patch"]).find(|method| !described.contains(method));
        let (method, url) = (other.expect("nothing takes patches").to_uppercase(), path.replace(['{', '}'], ""));
        let answer = server.send(request(&method, &server.url(&url)), None);
        let what = format!("{method} {url}: {} {}", answer.status, answer.body);
        assert!(answer.status == 405 && answer.body.contains("\"METHOD_NOT_ALLOWED\""), "{what}");
        // What takes WebSockets takes them by another method over HTTP/2, and names none.
        if item["get"]["responses"].get("101").is_none() {
            let allowed = answer.headers.get("allow").and_then(|allow| allow.to_str().ok()).unwrap_or_default();
            let allowed = allowed.to_lowercase();
            // HEAD comes with GET.
            let allowed = allowed.split(',').map(str::trim).filter(|method| *method != "head");
            assert_eq!(allowed.collect::<BTreeSet<&str>>(), described, "{what}");
        }
    }
    for operation in operations() {
        server.send_other_parameters(&operation);
    }
    for path in ["/v1/nothing", "/v1/topology/nothing", "/v1/kv/"] {
        let answer = server.send(request("GET", &server.url(path)), None);
        assert!(answer.status == 404 && answer.body.contains("\"NOT_FOUND\""), "{path}: {}", answer.body);
    }
    let answer = server.send(request("GET", &server.url("/v1/kv/%FF")), None);
    assert!(answer.status == 400 && answer.body.contains("UTF-8"), "{} {}", answer.status, answer.body);
    let conditional = request("POST", &server.url("/v1/registers/key?increment=1")).header("if-match", "*");
    let answer = server.send(conditional, None);
    assert!(answer.status == 400 && answer.body.contains("\"BAD_CONDITION\""), "{} {}", answer.status, answer.body);
    let answer = server.send(request("GET", &server.url("/v1/link")), None);
    assert_eq!(answer.headers.get("upgrade").map(http::HeaderValue::as_bytes), Some(&b"websocket"[..]));
    let strangers =
        [("host", "evil.example", 421, "HOST_REFUSED"), ("origin", "http://evil.example", 403, "ORIGIN_REFUSED")];
    for (header, value, status, code) in strangers {
        let answer = server.send(request("GET", &server.url("/v1/status")).header(header, value), None);
        assert!(answer.status == status && answer.body.contains(code), "{} {}", answer.status, answer.body);
        let schema = json!({ "$ref": "#/components/schemas/Error" });
        assert_eq!(misfits(&schema, &serde_json::from_str(&answer.body).expect("JSON")), "");
    }
}

/// A schema that nothing fits would be found out by the first test; one that everything fits, by this.
#[test]
fn what_is_not_described_does_not_fit() {
    let schema = json!({ "$ref": "#/components/schemas/Error" });
    let error = json!({ "error": { "code": "NO_QUORUM", "message": "…" }, "outcome": "refused" });
    assert_eq!(misfits(&schema, &error), "");
    for (pointer, value) in [("/error/code", json!("NO_SUCH_CODE")), ("/outcome", json!("done"))] {
        let mut changed = error.clone();
        *changed.pointer_mut(pointer).expect("it is there") = value;
        assert_ne!(misfits(&schema, &changed), "", "{changed}");
    }
    let mut more = error.clone();
    more["error"]["hint"] = json!("one thing more");
    assert_ne!(misfits(&schema, &more), "");
}

impl Server {
    /// The one at an address. The first of the file's nodes is meant to be itself, the second another one.
    fn new(address: String) -> Self {
        let mut server = Self { address, ids: Vec::new() };
        let (members, topology) = (server.fetch("/v1/members"), server.fetch("/v1/topology"));
        let me = members["me"].as_str().expect("an id").to_owned();
        let named = |name: &str| {
            let list = members["members"].as_array().expect("a list");
            let member = list.iter().find(|member| member["profile"]["name"] == name);
            member.and_then(|member| member["id"].as_str()).expect("it is a member").to_owned()
        };
        let real = [me, named("n2")].into_iter().chain(topology["cluster"].as_str().map(str::to_owned));
        let schemas = ["NodeId", "ClusterId"].map(|schema| &FILE["components"]["schemas"][schema]["examples"]);
        let examples = schemas.into_iter().filter_map(Value::as_array).flatten().filter_map(Value::as_str);
        server.ids = examples.zip(real).collect();
        assert_eq!(server.ids.len(), 3);
        server
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn fetch(&self, path: &str) -> Value {
        let (status, body) = read(agent().get(self.url(path)).call()).expect("an answer");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// Makes all calls of an operation, each until it is answered as it should be.
    fn try_all(&self, operation: &Operation) {
        for call in operation.calls() {
            if (operation.path, call) == ELSEWHERE {
                continue;
            }
            for accept in operation.kinds(call) {
                let what = format!("{operation}, {call:?} for {}", accept.unwrap_or("anything"));
                wait_for(&what, PATIENCE, || {
                    let answer = self.call(operation, call, accept);
                    let what = format!("{what}: {} {}", answer.status, answer.body);
                    operation.check(&what, &answer);
                    let good = operation.expects(call, &answer);
                    assert!(good || PASSING.contains(&answer.status), "{what}");
                    assert!(!good || accept.is_none_or(|accept| accept == answer.kind()), "{what}");
                    good
                });
            }
        }
        if operation.response(101).is_some() {
            let url = format!("ws://{}{}", self.address, operation.path);
            let (_, answer) = tungstenite::connect(url).expect("it is upgraded");
            assert_eq!(answer.status().as_u16(), 101, "{operation}");
        }
    }

    /// Sends one byte more than an operation takes and holds back the rest of what it announces: that must not be
    /// waited for.
    fn send_too_much(&self, operation: &Operation) {
        let body = &operation.what["requestBody"];
        let has_body = |call: &&str| contents(body).any(|(_, media)| example(media, call).is_some());
        let Some(call) = operation.calls().into_iter().find(has_body) else { return };
        let limit = bytes_allowed(body["description"].as_str().expect("it says how large it may be"));
        let request = self.prepare(operation, call, None).0.body(()).expect("a request");
        let url = request.uri().path_and_query().expect("a path");
        let mut text = format!("{} {url} HTTP/1.1\r\nhost: {}\r\n", request.method(), self.address);
        for (name, value) in request.headers() {
            text += &format!("{name}: {}\r\n", value.to_str().expect("text"));
        }
        text += &format!("content-length: {}\r\n\r\n{}", limit * 2, "x".repeat(limit + 1));
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("it can be set");
        stream.write_all(text.as_bytes()).expect("there is room for it");
        let mut answer = Vec::new();
        // How the connection ends makes no difference.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("\"TOO_LARGE\""), "{operation}: {answer}");
        assert!(operation.response(413).is_some(), "{operation}");
    }

    /// Sends parameters of other operations, parameters twice, and words in place of numbers.
    fn send_other_parameters(&self, operation: &Operation) {
        let own = operation.query();
        if own.is_empty() {
            return;
        }
        let refused = |query: &str, says: &str| {
            let url = format!("{}?{query}", operation.path.replace(['{', '}'], ""));
            let answer = self.send(request(&operation.method.to_uppercase(), &self.url(&url)), None);
            let what = format!("{operation}?{query}: {} {}", answer.status, answer.body);
            assert!(answer.status == 400 && answer.body.contains("\"BAD_REQUEST\""), "{what}");
            assert!(answer.body.contains(says), "{what}");
        };
        let names = operations().flat_map(|other| other.query().into_keys()).chain(["nonsense"]);
        let names: BTreeSet<&str> = names.collect();
        for name in names.into_iter().filter(|name| !own.contains_key(name)) {
            refused(&format!("{name}=1"), &format!("no parameter {name} here"));
        }
        for (name, schema) in own {
            refused(&format!("{name}=1&{name}=1"), &format!("parameter {name} is there twice"));
            if resolved(schema)["type"] == "integer" {
                refused(&format!("{name}=soon"), &format!("{name} is a whole number"));
            }
        }
    }

    /// Sends what the examples of a call say.
    fn call(&self, operation: &Operation, call: &str, accept: Option<&str>) -> Answer {
        let (request, body) = self.prepare(operation, call, accept);
        self.send(request, body.as_deref())
    }

    /// What the examples of a call say is sent, and its body.
    fn prepare(
        &self,
        operation: &Operation,
        call: &str,
        accept: Option<&str>,
    ) -> (http::request::Builder, Option<String>) {
        let (mut path, mut query, mut headers) = (operation.path.to_owned(), Vec::new(), Vec::new());
        for parameter in operation.parameters.iter().copied().map(resolved) {
            let name = parameter["name"].as_str().expect("a name");
            let Some(value) = example(parameter, call) else {
                assert!(parameter["required"] != true, "{operation}, {call}: there is no example of {name}");
                continue;
            };
            let value = self.with_real_ids(value);
            match parameter["in"].as_str() {
                Some("path") => path = path.replace(&format!("{{{name}}}"), &encoded(&value)),
                Some("query") => query.push(format!("{name}={}", encoded(&value))),
                Some("header") => headers.push((name, value)),
                place => panic!("{operation}: {name} is in {place:?}"),
            }
        }
        let body = &operation.what["requestBody"];
        let mut sent = None;
        for (kind, media) in contents(body) {
            if let Some(value) = example(media, call) {
                headers.push(("content-type", kind.to_owned()));
                sent = Some(self.with_real_ids(value));
            }
        }
        assert!(sent.is_some() || body["required"] != true, "{operation}, {call}: there is no example of the body");
        headers.extend(accept.map(|accept| ("accept", accept.to_owned())));
        let url = if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) };
        let start = request(&operation.method.to_uppercase(), &self.url(&url));
        (headers.into_iter().fold(start, |request, (name, value)| request.header(name, value)), sent)
    }

    fn send(&self, request: http::request::Builder, body: Option<&str>) -> Answer {
        let answer = match body {
            Some(body) => agent().run(request.body(body.as_bytes()).expect("a request")),
            None => agent().run(request.body(()).expect("a request")),
        };
        let answer = answer.unwrap_or_else(|error| panic!("{} does not answer: {error}", self.address));
        let (parts, mut body) = answer.into_parts();
        let mut answer = Answer { status: parts.status.as_u16(), headers: parts.headers, body: String::new() };
        if answer.kind() != "text/event-stream" {
            answer.body = body.read_to_string().expect("it is text");
        }
        answer
    }

    /// What is sent for a value of the file.
    fn with_real_ids(&self, value: &Value) -> String {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        self.ids.iter().fold(text, |text, (example, real)| text.replace(example, real))
    }
}

impl Answer {
    /// What kind of content it has.
    fn kind(&self) -> &str {
        let kind = self.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        kind.split(';').next().unwrap_or_default()
    }
}

impl Operation {
    /// The names of its calls, in order; one without a name if the examples have none.
    fn calls(&self) -> BTreeSet<&'static str> {
        let responses = self.what["responses"].as_object().into_iter().flatten().map(|(_, response)| response);
        let bodies = responses.chain([&self.what["requestBody"]]).flat_map(contents).map(|(_, media)| media);
        let holders = self.parameters.iter().copied().chain(bodies);
        let examples = holders.flat_map(|holder| holder["examples"].as_object().into_iter().flatten());
        let names: BTreeSet<&'static str> = examples.map(|(name, _)| name.as_str()).collect();
        if names.is_empty() { [""].into() } else { names }
    }

    /// What to ask for in turn: nothing in particular and, of what can be read, each kind that there is.
    fn kinds(&self, call: &str) -> Vec<Option<&'static str>> {
        let mut kinds = vec![None];
        if self.method == "get" {
            let expected = self.responses().filter(|&(status, response)| self.is_expected(call, status, response));
            kinds.extend(expected.flat_map(|(_, response)| contents(response)).map(|(kind, _)| Some(kind)));
        }
        kinds
    }

    /// Whether the answer is the one that its examples make expect.
    fn expects(&self, call: &str, answer: &Answer) -> bool {
        let Some(response) = self.response(answer.status) else { return false };
        let media = &response["content"][answer.kind()];
        let code = |body: &Value| body["error"]["code"].clone();
        let same_code = example(media, call).is_none_or(|example| {
            serde_json::from_str::<Value>(&answer.body).is_ok_and(|body| code(&body) == code(example))
        });
        self.is_expected(call, answer.status, response) && same_code
    }

    fn is_expected(&self, call: &str, status: u16, response: &'static Value) -> bool {
        let named = |response| contents(response).any(|(_, media)| media["examples"].get(call).is_some());
        if self.responses().any(|(_, response)| named(response)) {
            named(response)
        } else {
            (200..300).contains(&status)
        }
    }

    /// Whether all of an answer is described: its status, its headers, its kind and its body.
    fn check(&self, what: &str, answer: &Answer) {
        let Some(response) = self.response(answer.status) else { panic!("this status is not described: {what}") };
        for (name, header) in response["headers"].as_object().into_iter().flatten() {
            let header = resolved(header);
            match answer.headers.get(name).map(|value| value.to_str().expect("text")) {
                Some(value) => assert_eq!(misfits(&header["schema"], &json!(value)), "", "{name} of {what}"),
                None => assert!(header["required"] != true, "{name} is missing: {what}"),
            }
        }
        let Some(media) = response["content"].get(answer.kind()) else {
            panic!("the kind {} is not described: {what}", answer.kind())
        };
        if answer.kind() == "application/json" {
            let body: Value = serde_json::from_str(&answer.body).expect("it is JSON");
            assert_eq!(misfits(&media["schema"], &body), "", "{what}");
            let told = answer.headers.get("qunlong-outcome").map(|outcome| outcome.to_str().expect("text"));
            assert!(told.is_none_or(|told| body["outcome"] == told), "{told:?} in the header of {what}");
        }
    }

    /// Its parameters in the query, each with its schema.
    fn query(&self) -> BTreeMap<&'static str, &'static Value> {
        let parameters = self.parameters.iter().copied().map(resolved).filter(|parameter| parameter["in"] == "query");
        parameters.map(|parameter| (parameter["name"].as_str().expect("a name"), &parameter["schema"])).collect()
    }

    fn response(&self, status: u16) -> Option<&'static Value> {
        self.responses().find_map(|(other, response)| (other == status).then_some(response))
    }

    fn responses(&self) -> impl Iterator<Item = (u16, &'static Value)> + use<> {
        let responses = self.what["responses"].as_object().into_iter().flatten();
        responses.map(|(status, response)| (status.parse().expect("a status"), resolved(response)))
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method.to_uppercase(), self.path)
    }
}

fn operations() -> impl Iterator<Item = Operation> {
    METHODS.into_iter().flat_map(|method| {
        FILE["paths"].as_object().expect("paths").iter().filter_map(move |(path, item)| {
            let what = item.get(method)?;
            let parameters = [&item["parameters"], &what["parameters"]];
            let parameters = parameters.into_iter().filter_map(Value::as_array).flatten().collect();
            Some(Operation { method, path, parameters, what })
        })
    })
}

fn request(method: &str, url: &str) -> http::request::Builder {
    http::Request::builder().method(method).uri(url)
}

/// What a reference leads to; what is none is meant itself.
fn resolved(value: &'static Value) -> &'static Value {
    value["$ref"].as_str().map_or(value, |reference| pointed_at(reference).expect("references lead somewhere"))
}

fn pointed_at(reference: &str) -> Option<&'static Value> {
    FILE.pointer(reference.strip_prefix('#')?)
}

fn collect_references(value: &'static Value, references: &mut BTreeSet<&'static str>) {
    match value {
        Value::Object(fields) => {
            references.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|value| collect_references(value, references));
        }
        Value::Array(values) => values.iter().for_each(|value| collect_references(value, references)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}

/// The kinds of content that a body may have.
fn contents(body: &'static Value) -> impl Iterator<Item = (&'static str, &'static Value)> {
    body["content"].as_object().into_iter().flatten().map(|(kind, media)| (kind.as_str(), media))
}

/// What a parameter or a body is in a call, if anything.
fn example(holder: &'static Value, call: &str) -> Option<&'static Value> {
    holder.get("example").or_else(|| holder["examples"].get(call)?.get("value"))
}

/// How large a body may be, by its description.
fn bytes_allowed(description: &str) -> usize {
    let number = description.split(" bytes").next().and_then(|before| before.rsplit(' ').next());
    number.and_then(|number| number.replace(',', "").parse().ok()).expect("so many bytes")
}

/// Every example fits its schema.
fn check_examples(what: &str, holder: &Value) {
    let named = holder["examples"].as_object().into_iter().flatten().map(|(_, example)| &example["value"]);
    for example in named.chain(holder.get("example")) {
        // A value that is not JSON has no schema.
        if let Some(schema) = holder.get("schema") {
            assert_eq!(misfits(schema, example), "", "{what}: {example}");
        }
    }
}

/// Where and why a value does not fit a schema of the file; empty if it does. What the schema does not name may not be
/// there.
fn misfits(schema: &Value, value: &Value) -> String {
    let mut schema = schema.clone();
    schema["components"] = json!({ "schemas": FILE["components"]["schemas"] });
    close(&mut schema);
    let validator = jsonschema::options().with_draft(Draft::Draft202012).build(&schema).expect("it is a schema");
    let misfits = validator.iter_errors(value).map(|error| format!("{error} at {}", error.instance_path()));
    misfits.collect::<Vec<String>>().join("; ")
}

/// Lets no object have more fields than are described.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.contains_key("properties") && !fields.contains_key("additionalProperties") {
                fields.insert("additionalProperties".to_owned(), json!(false));
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(values) => values.iter_mut().for_each(close),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}

/// As part of a URL.
fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}
