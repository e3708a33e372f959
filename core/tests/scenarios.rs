//! Golden scenarios: each file is a script, then `----`, then what it prints.
//!
//! `UPDATE_GOLDEN=1 cargo test -p qunlong-core --test scenarios` writes what is printed now into the files; read the
//! difference before you commit it.

use qunlong_core::sim::script;

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => { $(
        #[test]
        fn $name() {
            check(stringify!($name), include_str!(concat!("scenarios/", stringify!($name), ".txt")));
        }
    )* };
}

scenarios!(first_write, siblings, minority, crash_and_return, refutation, tab_coordinates, bad_weather, collection,);

#[test]
fn a_scenario_that_does_not_hold_says_where() {
    let error = script::run("run 1s\nfly n1").expect_err("there is no such command");
    assert_eq!(error.to_string(), "line 2: unknown command: fly n1");
    let error = script::run("run 1s\ncrash n2\nrun 1ms\nagree").expect_err("n2 is still believed alive");
    assert_eq!(
        error.to_string(),
        "line 4: n1 does not see exactly those alive who run: misses [], believes in [n2 boot 1, held as Some((Alive, 1))]"
    );
}

fn check(name: &str, file: &str) {
    let (text, expected) = file.split_once("----\n").unwrap_or((file, ""));
    let printed = script::run(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let path = format!("{}/tests/scenarios/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(path, format!("{text}----\n{printed}")).expect("the golden file can be written");
        return;
    }
    for (line, (printed, expected)) in printed.lines().zip(expected.lines()).enumerate() {
        assert_eq!(printed, expected, "{name}: line {} of the golden trace", line + 1);
    }
    assert_eq!(printed.lines().count(), expected.lines().count(), "{name}: number of lines");
}
