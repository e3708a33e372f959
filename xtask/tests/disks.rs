//! A real node on a disk that is full, and on one whose syncs fail.
//!
//! The full disk is a small one in memory, mounted where only the node sees it; the failing sync is a library that
//! stands before the system's. Neither needs more than an ordinary user may do; where a system forbids even that, the
//! test says so.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use support::cluster::{Answer, agent, free_ports, read, wait_for};

/// A node that is a cluster by itself. Killed when dropped.
struct Lonely {
    child: Child,
    address: String,
    log: PathBuf,
}

impl Lonely {
    /// Runs a node by this command, to which its arguments are added.
    fn start(mut command: Command, data: &Path, log: PathBuf) -> Self {
        let address = format!("127.0.0.1:{}", free_ports(1));
        let stderr = fs::File::create(&log).expect("a log can be written");
        let child = command
            .arg("node")
            .args(["--listen", &address, "--bootstrap", "--owners", "1"])
            .arg("--data")
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the node starts");
        let node = Self { child, address, log };
        wait_for("an epoch", Duration::from_secs(20), || {
            node.get("nothing").is_some_and(|(_, body)| body.contains("KEY_NOT_FOUND"))
        });
        node
    }

    fn url(&self, key: &str) -> String {
        format!("http://{}/v1/kv/{key}", self.address)
    }

    fn put(&self, key: &str, value: &str) -> Option<Answer> {
        read(agent().put(self.url(key)).send(value))
    }

    fn get(&self, key: &str) -> Option<Answer> {
        read(agent().get(self.url(key)).call())
    }

    fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }
}

impl Drop for Lonely {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_full_disk_refuses_writes_and_recovers_without_a_restart() {
    xtask::build_server().expect("the server builds");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).expect("writable");
    let mounts = Command::new("unshare").args(["--map-root-user", "--mount", "true"]).status();
    if !mounts.is_ok_and(|status| status.success()) {
        println!("not tested: this system lets nobody mount a disk of their own");
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c"]);
    command.arg("mount -t tmpfs -o size=8m tmpfs \"$0\" && exec \"$@\"").arg(&disk).arg(xtask::server_binary());
    let node = Lonely::start(command, &disk.join("data"), dir.path().join("log"));

    assert_eq!(node.put("before", "there").map(|(code, _)| code), Some(200));
    // Everything but a few pages is taken; the node has laid by 4 MiB of the 8.
    let seen_by_node = PathBuf::from(format!("/proc/{}/root", node.child.id()));
    let filler = seen_by_node.join(disk.strip_prefix("/").expect("absolute")).join("filler");
    let free = fs::write(&filler, vec![0; 8 << 20]);
    assert!(free.is_err(), "the disk is small");

    let value = "x".repeat(60 << 10);
    let mut acked = Vec::new();
    let mut refused = None;
    for n in 0..40 {
        let key = format!("k{n}");
        let (code, body) = node.put(&key, &value).expect("the node answers");
        if code == 507 {
            refused = Some(body);
            break;
        }
        assert_eq!(code, 200, "{body}");
        acked.push(key);
    }
    let refused = refused.expect("a full disk refuses");
    assert!(refused.contains("DISK_FULL") && refused.contains("\"refused\""), "{refused}");
    for key in &acked {
        assert_eq!(node.get(key).map(|(code, body)| (code, body.len())), Some((200, value.len())), "reads go on");
    }
    assert_eq!(node.get("before"), Some((200, "there".to_owned())));

    fs::remove_file(&filler).expect("the filler was ours");
    wait_for("room to be noticed", Duration::from_secs(5), || {
        node.put("after", "there").is_some_and(|(code, _)| code == 200)
    });
    assert_eq!(node.get("after"), Some((200, "there".to_owned())));
}

/// The first `fdatasync` after a file appears fails, and so do all others.
const FAILING_SYNC: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
int fdatasync(int file) {
    if (access(getenv("QUNLONG_TEST_FAIL"), F_OK) == 0) { errno = EIO; return -1; }
    return (int)syscall(SYS_fdatasync, file);
}
"#;

#[test]
fn a_sync_that_fails_ends_the_node_with_74_and_one_line() {
    xtask::build_server().expect("the server builds");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (source, library) = (dir.path().join("sync.c"), dir.path().join("sync.so"));
    fs::write(&source, FAILING_SYNC).expect("writable");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    assert!(built.is_ok_and(|status| status.success()), "Rust needs a C compiler to link, so there is one");

    let (data, fail) = (dir.path().join("data"), dir.path().join("fail"));
    let mut command = Command::new(xtask::server_binary());
    command.env("LD_PRELOAD", &library).env("QUNLONG_TEST_FAIL", &fail);
    let mut node = Lonely::start(command, &data, dir.path().join("log"));
    assert_eq!(node.put("before", "there").map(|(code, _)| code), Some(200));

    fs::write(&fail, "").expect("writable");
    assert_ne!(node.put("lost", "?").map(|(code, _)| code), Some(200), "nothing is acknowledged after a failed sync");
    assert_eq!(node.wait().code(), Some(74));
    let log = fs::read_to_string(&node.log).expect("readable");
    let said: Vec<&str> = log.lines().filter(|line| line.starts_with("qunlong:")).collect();
    assert_eq!(said.len(), 1, "{log}");
    assert!(said[0].contains("DISK_FAILED") && said[0].contains("journal-"), "{log}");

    // On a disk that works again, what was acknowledged is there.
    let again = Lonely::start(Command::new(xtask::server_binary()), &data, dir.path().join("log"));
    assert_eq!(again.get("before"), Some((200, "there".to_owned())));
}
