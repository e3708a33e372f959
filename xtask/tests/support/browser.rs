//! A headless Chromium, driven over the DevTools protocol without any driver program.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::stream::SplitSink;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, oneshot};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>;
type Out = SplitSink<WebSocketStream<MaybeTlsStream<TcpStream>>, Message>;

/// A running browser. It is killed when dropped.
pub struct Browser {
    _child: Child,
    _profile: TempDir,
    out: Arc<Mutex<Out>>,
    waiting: Waiting,
    next: Arc<AtomicU64>,
}

/// One tab.
#[derive(Clone)]
pub struct Tab {
    out: Arc<Mutex<Out>>,
    waiting: Waiting,
    next: Arc<AtomicU64>,
    session: String,
    target: String,
}

const PATIENCE: Duration = Duration::from_secs(20);

impl Browser {
    pub async fn launch() -> Self {
        let program = xtask::setup::chromium().expect("a Chromium");
        let profile = tempfile::tempdir().expect("a temporary folder");
        let mut child = Command::new(program)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--remote-debugging-port=0", "--window-size=1440,900"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Chromium starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let address = loop {
            let line =
                timeout(PATIENCE, lines.next_line()).await.expect("in time").expect("readable").expect("an address");
            if let Some(address) = line.strip_prefix("DevTools listening on ") {
                break address.to_owned();
            }
        };
        // A browser that cannot write its log stops.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let (socket, _) = tokio_tungstenite::connect_async(address).await.expect("DevTools answers");
        let (out, mut heard) = socket.split();
        let waiting = Waiting::default();
        let answers = Arc::clone(&waiting);
        tokio::spawn(async move {
            while let Some(Ok(message)) = heard.next().await {
                let Ok(text) = message.to_text() else { continue };
                let value: Value = serde_json::from_str(text).unwrap_or_default();
                let Some(id) = value["id"].as_u64() else { continue };
                if let Some(answer) = answers.lock().await.remove(&id) {
                    let _ = answer.send(value);
                }
            }
        });
        let out = Arc::new(Mutex::new(out));
        Self { _child: child, _profile: profile, out, waiting, next: Arc::default() }
    }

    /// Opens a tab in a window of its own, so that all tabs stay visible.
    pub async fn open(&self, url: &str) -> Tab {
        self.open_in(url, true).await
    }

    /// Opens a tab before the one that is in front, which is hidden by that.
    pub async fn open_over(&self, url: &str) -> Tab {
        self.open_in(url, false).await
    }

    async fn open_in(&self, url: &str, window: bool) -> Tab {
        let mut tab = Tab {
            out: Arc::clone(&self.out),
            waiting: Arc::clone(&self.waiting),
            next: Arc::clone(&self.next),
            session: String::new(),
            target: String::new(),
        };
        let made =
            tab.send("Target.createTarget", json!({ "url": url, "newWindow": window, "background": false })).await;
        tab.target = made["targetId"].as_str().expect("a target").to_owned();
        let attached = tab.send("Target.attachToTarget", json!({ "targetId": tab.target, "flatten": true })).await;
        tab.session = attached["sessionId"].as_str().expect("a session").to_owned();
        let size = json!({ "width": 1440, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        tab.send("Emulation.setDeviceMetricsOverride", size).await;
        tab
    }
}

impl Tab {
    pub async fn send(&self, method: &str, params: Value) -> Value {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let (answer, heard) = oneshot::channel();
        self.waiting.lock().await.insert(id, answer);
        let mut message = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.out.lock().await.send(Message::text(message.to_string())).await.expect("the browser runs");
        let answer = timeout(PATIENCE, heard).await.unwrap_or_else(|_| panic!("{method} in time")).expect("an answer");
        assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        answer["result"].clone()
    }

    /// The value of a JavaScript expression, promises awaited.
    pub async fn eval(&self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let result = self.send("Runtime.evaluate", params).await;
        assert!(result["exceptionDetails"].is_null(), "{expression}: {}", result["exceptionDetails"]);
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub async fn wait_for(&self, what: &str, expression: &str) {
        let started = Instant::now();
        while self.eval(&format!("Boolean({expression})")).await != json!(true) {
            if started.elapsed() > PATIENCE {
                let page = self.eval("document.body.innerText").await;
                panic!("{what} did not come true; the page says: {page}");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until this tab's node is in the cluster.
    pub async fn wait_until_joined(&self) {
        self.wait_for("joining", "document.querySelector('.top .chip.good b')").await;
    }

    /// Types into a field as a person would.
    pub async fn fill(&self, selector: &str, text: &str) {
        let (selector, text) = (json!(selector), json!(text));
        let script = format!(
            "(() => {{ const field = document.querySelector({selector}); field.focus(); field.select(); \
             return document.execCommand('insertText', false, {text}); }})()"
        );
        assert_eq!(self.eval(&script).await, json!(true), "typing into {selector}");
    }

    /// Clicks as a person would: once it is there and may be pressed.
    pub async fn click(&self, selector: &str) {
        let selector = json!(selector);
        let ready = format!(
            "document.querySelector({selector})?.disabled === false || \
             (document.querySelector({selector}) && !('disabled' in document.querySelector({selector})))"
        );
        self.wait_for(&format!("{selector} to be there"), &ready).await;
        self.eval(&format!(
            "(() => {{ const e = document.querySelector({selector}); e.focus(); \
             e.dispatchEvent(new MouseEvent('click', {{ bubbles: true, cancelable: true }})); }})()"
        ))
        .await;
    }

    /// Gives a file to an input, as a user who has chosen it.
    pub async fn choose_file(&self, selector: &str, path: &Path) {
        let document = self.send("DOM.getDocument", json!({})).await;
        let params = json!({ "nodeId": document["root"]["nodeId"], "selector": selector });
        let input = self.send("DOM.querySelector", params).await;
        let params = json!({ "files": [path], "nodeId": input["nodeId"] });
        self.send("DOM.setFileInputFiles", params).await;
    }

    /// Goes to another screen of the page.
    pub async fn go(&self, hash: &str) {
        self.eval(&format!("location.hash = {}", json!(hash))).await;
        sleep(Duration::from_millis(200)).await;
    }

    pub async fn text(&self, selector: &str) -> String {
        let value = self.eval(&format!("document.querySelector({})?.innerText ?? ''", json!(selector))).await;
        value.as_str().unwrap_or_default().to_owned()
    }

    /// Keeps a picture of the page under `target/screens`.
    pub async fn screenshot(&self, name: &str) -> PathBuf {
        let shot = self.send("Page.captureScreenshot", json!({ "format": "png" })).await;
        let dir = xtask::target().join("screens");
        std::fs::create_dir_all(&dir).expect("a folder for pictures");
        let path = dir.join(format!("{name}.png"));
        std::fs::write(&path, decode_base64(shot["data"].as_str().expect("a picture"))).expect("writable");
        path
    }

    /// What the browser calls this tab.
    pub fn target(&self) -> &str {
        &self.target
    }

    pub async fn reload(&self) {
        self.send("Page.reload", json!({})).await;
    }

    pub async fn close(&self) {
        self.send("Target.closeTarget", json!({ "targetId": self.target })).await;
    }
}

fn decode_base64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut buffer, mut bits) = (0_u32, 0);
    for byte in text.bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        buffer = buffer << 6 | u32::from(digit);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits) as u8);
        }
    }
    bytes
}
