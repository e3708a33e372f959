//! The recipes of README.md: every script as it stands there, run by several shells at once against three servers, and held
//! to what is said of it.
//!
//! A recipe without an entry in [`RECIPES`] fails the test, and so does an entry without a recipe. Of a script nothing is
//! replaced but the address of the server that it asks over HTTP; the script that is its reader's is in the entry.

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::cluster::{Cluster, Process, wait_for};

/// How long anything may take, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a recipe calls the server that it asks over HTTP.
const LOCAL: &str = "http://localhost:7100";

/// What must be true of a recipe.
struct Recipe {
    /// As README.md calls it.
    name: &'static str,
    /// The script that README.md leaves to its reader, and its name.
    yours: Option<(&'static str, &'static str)>,
    check: fn(&Trial<'_>),
}

/// In the order of README.md.
static RECIPES: [Recipe; 6] = [
    Recipe {
        name: "Configuration",
        yours: Some(("reload.sh", r#"echo "$1" >> "told-$RUN""#)),
        check: all_are_told_of_changes_and_none_is_overwritten_unseen,
    },
    Recipe {
        name: "Leader election",
        yours: Some(("lead.sh", LEAD)),
        check: one_leads_at_a_time_and_whoever_was_deposed_writes_nothing,
    },
    Recipe { name: "Counter", yours: None, check: no_number_is_given_twice },
    Recipe {
        name: "Queue",
        yours: Some(("work.sh", WORK)),
        check: a_job_is_handed_out_once_and_again_if_its_consumer_dies,
    },
    Recipe { name: "Barrier", yours: None, check: nobody_goes_on_before_all_have_come },
    Recipe {
        name: "Members",
        yours: Some(("work.sh", "until [ -e stop ]; do sleep 0.1; done")),
        check: whoever_lives_is_listed_and_whoever_has_died_is_not,
    },
];

/// Decides three times and then no more. Where a file says so, it has `qunlong lock` killed, which is the parent of the shell
/// that has called it, and decides once more when it is late.
const LEAD: &str = r#"
echo "begin $QUNLONG_LOCK_TOKEN" >> led
if [ -e depose ]; then
  rm depose
  kill -KILL "$(cut -d ' ' -f 4 "/proc/$PPID/stat")"
  until [ -e late ]; do sleep 0.1; done
  echo "too late"
  exit
fi
sleep 0.2
echo "end $QUNLONG_LOCK_TOKEN" >> led
turns=$(grep -c "^end $QUNLONG_LOCK_TOKEN\$" led)
[ "$turns" -le 3 ] && echo "$turns"
"#;

/// Says which job it has; where a file says so, it never comes to its end.
const WORK: &str = r#"
if [ -e hang ]; then
  echo "$1" >> hung
  exec sleep 600
fi
echo "$1" >> handed
"#;

#[test]
fn every_recipe_does_what_is_said_of_it() {
    xtask::build_server().expect("the server builds");
    xtask::setup::program("curl", "curl").expect("a recipe needs curl");
    let scripts = scripts();
    let written: Vec<&str> = scripts.iter().map(|(name, _)| name.as_str()).collect();
    let known: Vec<&str> = RECIPES.iter().map(|recipe| recipe.name).collect();
    assert_eq!(written, known, "README.md and this test name the same recipes");

    let cluster = Cluster::start(None);
    // All files are written before anything runs: a script that somebody has open for writing does not start.
    let trials: Vec<Trial<'_>> =
        RECIPES.iter().zip(&scripts).map(|(recipe, (_, script))| Trial::new(&cluster, recipe, script)).collect();
    std::thread::scope(|scope| {
        for (recipe, trial) in RECIPES.iter().zip(&trials) {
            let thread = std::thread::Builder::new().name(recipe.name.to_owned());
            thread.spawn_scoped(scope, move || (recipe.check)(trial)).expect("a thread starts");
        }
    });
}

/// What README.md has under *Recipes*: names and scripts, in its order.
fn scripts() -> Vec<(String, String)> {
    let readme = fs::read_to_string(xtask::root().join("README.md")).expect("it is there");
    let (_, section) = readme.split_once("\n## Recipes\n").expect("there is a section of recipes");
    let (section, _) = section.split_once("\n## ").unwrap_or((section, ""));
    let mut parts = section.split("```");
    let mut scripts = Vec::new();
    while let (Some(prose), Some(block)) = (parts.next(), parts.next()) {
        let name = |line: &str| Some(line.strip_prefix("**")?.split_once(".**")?.0.to_owned());
        let mut names: Vec<String> = prose.lines().filter_map(name).collect();
        let script = block.strip_prefix("sh\n").unwrap_or_else(|| panic!("a recipe is of sh: {block}"));
        assert_eq!(names.len(), 1, "one name before each script: {prose}");
        scripts.extend(names.pop().map(|name| (name, script.to_owned())));
    }
    scripts
}

/// A recipe that is tried.
struct Trial<'a> {
    nodes: &'a [Process],
    /// Where its script and its reader's are, and run.
    folder: PathBuf,
    /// How often it was run.
    runs: AtomicUsize,
}

impl<'a> Trial<'a> {
    fn new(cluster: &'a Cluster, recipe: &Recipe, script: &str) -> Self {
        let folder = cluster.data.path().join(recipe.name);
        fs::create_dir(&folder).expect("a new folder");
        fs::write(folder.join("recipe.sh"), script.replace(LOCAL, &cluster.nodes[0].url(""))).expect("it is written");
        if let Some((name, text)) = recipe.yours {
            let path = folder.join(name);
            fs::write(&path, format!("#!/bin/sh -eu\n{text}\n")).expect("it is written");
            fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("it is ours");
        }
        Self { nodes: &cluster.nodes, folder, runs: AtomicUsize::new(0) }
    }

    /// Starts the script. It knows all servers, each run another one first.
    fn start(&self) -> Run {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let mut servers: Vec<String> = self.nodes.iter().map(|node| node.url("")).collect();
        servers.rotate_left(number % self.nodes.len());
        let binary = fs::canonicalize(xtask::server_binary()).expect("it was built");
        let folder = binary.parent().expect("it is in a folder").display();
        let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
        let output = self.folder.join(format!("output-{number}"));
        let file = File::create(&output).expect("a new file");
        let child = Command::new("sh")
            .args(["-eu", "recipe.sh"])
            .current_dir(&self.folder)
            .env("PATH", path)
            .env("QUNLONG_SERVER", servers.join(","))
            .env("RUN", number.to_string())
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .process_group(0)
            .spawn();
        Run { child: child.expect("sh starts"), number, output }
    }

    fn start_all(&self, count: usize) -> Vec<Run> {
        (0..count).map(|_| self.start()).collect()
    }

    /// Runs the script to its good end.
    fn run(&self) {
        self.start().end_well();
    }

    /// A command beside the script. What it printed.
    fn ask(&self, arguments: &[&str]) -> String {
        let (code, told) = self.nodes[0].command(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {told}");
        told
    }

    fn listed(&self, prefix: &str) -> Vec<String> {
        self.ask(&["register", "list", prefix]).lines().map(str::to_owned).collect()
    }

    /// What scripts have written into a file.
    fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Makes a file that a script looks for.
    fn say(&self, file: &str) {
        fs::write(self.folder.join(file), "").expect("it is written");
    }
}

/// A script that was started, and all that it has started. Killed when dropped, as if their machine had died.
struct Run {
    child: Child,
    number: usize,
    output: PathBuf,
}

impl Run {
    fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_none()
    }

    /// Waits until the script ends: its exit code. What it has left running goes on.
    fn end(&mut self) -> Option<i32> {
        let began = Instant::now();
        while self.is_running() {
            assert!(began.elapsed() < PATIENCE, "it does not end, and has said:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child.wait().expect("it has ended").code()
    }

    fn end_well(&mut self) {
        let code = self.end();
        assert_eq!(code, Some(0), "it has said:\n{}", self.said());
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.output).expect("it is there")
    }

    /// How often a condition did not hold.
    fn refusals(&self) -> usize {
        self.said().matches("CONFLICT").count()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

/// Whoever was not the first to change what it had read has changed nothing, and everybody knows what there is in the end.
fn all_are_told_of_changes_and_none_is_overwritten_unseen(trial: &Trial<'_>) {
    let mut runs = trial.start_all(3);
    let mut made = 0;
    for run in &mut runs {
        let code = run.end();
        let said = run.said();
        let refused = code == Some(1) && said.lines().last().is_some_and(|line| line.contains("CONFLICT"));
        assert!(code == Some(0) || refused, "{code:?}:\n{said}");
        made += usize::from(code == Some(0));
    }
    let value = format!("workers=4{}", ",verbose".repeat(made));
    assert!(made >= 1, "somebody is the first");
    assert_eq!(trial.ask(&["register", "get", "config", "--version"]), format!("{}\t{value}\n", made + 1));
    let all_know = |value: &str| {
        let last = |run: &Run| trial.lines(&format!("told-{}", run.number)).pop();
        runs.iter().all(|run| last(run).as_deref() == Some(value))
    };
    wait_for("all know of the changes", PATIENCE, || all_know(&value));
    trial.ask(&["register", "put", "config", "workers=8"]);
    wait_for("all know of a change by somebody else", PATIENCE, || all_know("workers=8"));
}

fn one_leads_at_a_time_and_whoever_was_deposed_writes_nothing(trial: &Trial<'_>) {
    const LEADERS: usize = 3;
    // What lead.sh does: three turns with a decision, and one without.
    const TURNS: usize = 4;
    let plan = || trial.ask(&["register", "get", "plan", "--version"]);
    trial.start_all(LEADERS).iter_mut().for_each(Run::end_well);
    let led = trial.lines("led");
    let (mut last, mut tokens) = (0, BTreeSet::new());
    for turn in led.chunks(2) {
        let token: u64 = turn[0].strip_prefix("begin ").and_then(|token| token.parse().ok()).expect("a turn begins");
        assert_eq!(turn.get(1), Some(&format!("end {token}")), "two lead at once: {led:?}");
        assert!(token >= last, "tokens go back: {led:?}");
        last = token;
        tokens.insert(token);
    }
    assert_eq!((led.len(), tokens.len()), (2 * TURNS * LEADERS, LEADERS), "{led:?}");
    // Somebody was the first; each has written its token, and a decision in all turns but the last.
    assert_eq!(plan(), format!("{}\t{last} 3\n", 1 + TURNS * LEADERS));

    // What renews its lock is killed, and it goes on as if it led.
    trial.say("depose");
    let mut deposed = trial.start();
    assert_eq!(deposed.end(), Some(128 + 9), "{}", deposed.said());
    trial.run();
    let before = plan();
    // One, because there is a plan already.
    assert_eq!(deposed.refusals(), 1, "{}", deposed.said());
    trial.say("late");
    wait_for("what is written late is refused", PATIENCE, || deposed.refusals() == 2);
    assert_eq!(plan(), before);

    // It has slept between taking the lock and looking at what there is.
    trial.ask(&["register", "put", "plan", "1000000000 of a later one"]);
    let before = plan();
    let mut late = trial.start();
    assert_eq!(late.end(), Some(1), "{}", late.said());
    assert_eq!(plan(), before);
}

fn no_number_is_given_twice(trial: &Trial<'_>) {
    const CLIENTS: usize = 5;
    let mut given: Vec<u64> = Vec::new();
    for run in &mut trial.start_all(CLIENTS) {
        run.end_well();
        let said = run.said();
        let words = said.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty());
        let numbers: Vec<u64> = words.map(|word| word.parse().expect("a number")).collect();
        let [id, first, last] = numbers[..] else { panic!("three numbers: {said}") };
        assert!(id < first && last - first == 99, "{said}");
        given.push(id);
        given.extend(first..=last);
    }
    given.sort_unstable();
    let all: Vec<u64> = (1..=101 * CLIENTS as u64).collect();
    assert_eq!(given, all);
    assert_eq!(trial.ask(&["register", "get", "ids"]), format!("{}\n", all.len()));
}

fn a_job_is_handed_out_once_and_again_if_its_consumer_dies(trial: &Trial<'_>) {
    /// All that were ever made were handed out, each once, and none is left.
    fn check(trial: &Trial<'_>, jobs: usize) {
        let mut handed = trial.lines("handed");
        handed.sort_unstable();
        let mut all: Vec<String> = (1..=jobs).map(|n| format!("job {n}")).collect();
        all.sort_unstable();
        assert_eq!(handed, all);
        assert_eq!(trial.listed("jobs/"), [""; 0]);
    }
    const SHELLS: usize = 3;
    const TIMES: usize = 3;
    std::thread::scope(|scope| {
        for _ in 0..SHELLS {
            scope.spawn(|| (0..TIMES).for_each(|_| trial.run()));
        }
    });
    check(trial, SHELLS * TIMES);

    trial.say("hang");
    let victim = trial.start();
    wait_for("a job is under way", PATIENCE, || !trial.lines("hung").is_empty());
    drop(victim);
    fs::remove_file(trial.folder.join("hang")).expect("it is there");
    let hung = trial.lines("hung");
    wait_for("it is handed out again", PATIENCE, || {
        trial.run();
        trial.lines("handed").contains(&hung[0])
    });
    check(trial, trial.runs.load(Ordering::Relaxed));
}

fn nobody_goes_on_before_all_have_come(trial: &Trial<'_>) {
    trial.start_all(3).iter_mut().for_each(Run::end_well);

    trial.ask(&["register", "delete", "meeting"]);
    let mut early = trial.start_all(2);
    let here = || trial.nodes[0].command(&["register", "get", "meeting"]);
    wait_for("two have come", PATIENCE, || here() == (Some(0), "2\n".to_owned()));
    std::thread::sleep(Duration::from_secs(3));
    assert!(early.iter_mut().all(Run::is_running), "they wait for the third");
    trial.run();
    early.iter_mut().for_each(Run::end_well);
    assert_eq!(here(), (Some(0), "3\n".to_owned()));
}

fn whoever_lives_is_listed_and_whoever_has_died_is_not(trial: &Trial<'_>) {
    let dies = trial.start();
    wait_for("one is listed", PATIENCE, || trial.listed("workers/").len() == 1);
    let first = trial.listed("workers/");
    let mut lives = trial.start();
    wait_for("both are listed", PATIENCE, || trial.listed("workers/").len() == 2);
    drop(dies);
    wait_for("one has died", PATIENCE, || !trial.listed("workers/").contains(&first[0]));
    assert_eq!(trial.listed("workers/").len(), 1, "the other one gives signs of life");
    trial.say("stop");
    lives.end_well();
    assert_eq!(trial.listed("workers/"), [""; 0]);
    // The version that was made when it went: after a sign of life every 3 s, for as long as the dead one was listed.
    let said = lives.said();
    let version: Option<u64> = said.lines().last().and_then(|line| line.parse().ok());
    assert!(version >= Some(4), "{said}");
}
