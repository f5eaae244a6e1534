//! Choosing kernels by measuring them, and keeping what was chosen.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Fathom, fathom};

/// `fathom` with a cache folder of its own for what is tuned. The driver keeps its own: what it has
/// compiled takes long to compile again.
fn within(cache: &Path, args: &str) -> Fathom {
    let home = std::env::var_os("HOME").map_or_else(PathBuf::new, PathBuf::from);
    let kept = std::env::var_os("XDG_CACHE_HOME").map_or(home.join(".cache"), PathBuf::from);
    let run = fathom(args.split_whitespace());
    run.env("XDG_CACHE_HOME", cache.to_str().unwrap())
        .env("MESA_SHADER_CACHE_DIR", kept.to_str().unwrap())
}

/// The one file that is kept there.
fn kept(cache: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(cache.join("fathom")).ok()?.map(|entry| entry.unwrap().path());
    let mut kept = files.filter(|p| p.extension().is_some_and(|e| e == "json"));
    let first = kept.next();
    assert_eq!(kept.next(), None);
    first
}

#[test]
fn what_is_tuned_is_used_until_it_is_forgotten() {
    if !cfg!(target_os = "linux") || fathom(["devices", "--json"]).json() == json!([]) {
        eprintln!("NOT RUN ON A GPU: no adapter, or a cache folder that no variable moves");
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let within = |args: &str| within(cache.path(), args);
    let bench =
        |more: &str| -> Value { within(&format!("bench -p 2 -n 1 -r 1 --json {more}")).json() };
    assert_eq!((&bench("")["tuned"], &bench("")["tuning"]), (&json!(false), &json!([])));

    let tune = "tune weights/minnow --seconds 0.05 --json";
    let report = within(&format!("{tune} --dry-run")).json();
    assert_eq!(report["kept"], Value::Null);
    assert_eq!(kept(cache.path()), None);
    let choices = report["choices"].as_array().unwrap();
    assert!(!choices.is_empty());
    for choice in choices {
        let candidates = choice["candidates"].as_array().unwrap();
        assert!(candidates.len() > 1, "{choice}");
        assert!(candidates.iter().any(|c| c["candidate"] == choice["chosen"]), "{choice}");
        assert!(candidates.iter().all(|c| c["microseconds"].as_f64().unwrap() > 0.0), "{choice}");
    }
    let report = within(tune).json();
    let file = kept(cache.path()).unwrap();
    assert_eq!(report["kept"], file.to_str().unwrap());
    let report = bench("");
    assert_eq!(report["tuned"], true);
    assert!(report["device"].as_str().unwrap().ends_with(", tuned"), "{report}");

    // Another choice than any measurement is sure to make.
    let mut text: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let chosen = json!({
        "kernel": "causal_attention", "class": "one row", "chosen": "parts of 512 keys"
    });
    text["choices"] = json!([chosen]);
    std::fs::write(&file, text.to_string()).unwrap();
    assert_eq!(bench("")["tuning"], json!([chosen]));
    let untuned = bench("--no-tune");
    assert_eq!((&untuned["tuned"], &untuned["tuning"]), (&json!(false), &json!([])));
    assert!(!untuned["device"].as_str().unwrap().contains("tuned"), "{untuned}");
    let devices = within("devices --json").json();
    let tuned = |d: &&Value| d["tuned"] == true;
    let devices: Vec<_> = devices.as_array().unwrap().iter().filter(tuned).collect();
    assert_eq!(devices[0]["tuning"], json!([chosen]));
    assert!(within("devices").succeeds().contains("tuned: 1 choice"));
    within("verify --tokens 8").succeeds();

    // What can't be used is said, and no obstacle.
    for (broken, said) in [("{", "not written by `fathom tune`"), ("", "not written")] {
        std::fs::write(&file, broken).unwrap();
        let report = bench("");
        assert_eq!(report["tuned"], false);
        let device = report["device"].as_str().unwrap();
        assert!(device.contains("not tuned: ") && device.contains(said), "{device}");
        assert!(within("devices").succeeds().contains(said));
    }
    text["kernels"] = json!("0.0.0 0");
    std::fs::write(&file, text.to_string()).unwrap();
    let done = within("run -p hello --max-tokens 1").done();
    assert_eq!(done.code, Some(0));
    assert!(done.err.contains("tuned for other kernels"), "{}", done.err);
    within(tune).succeeds();
    assert_eq!(bench("")["tuned"], true);
    assert!(within("tune --reset").succeeds().contains("forgotten"));
    assert!(within("tune --reset").succeeds().contains("nothing was kept"));
    assert_eq!(bench("")["tuned"], false);
}

#[test]
fn arguments_of_tune_are_checked() {
    fathom(["tune", "--seconds", "5000"]).misused("--seconds");
    fathom(["tune", "--seconds", "nan"]).misused("--seconds");
    fathom(["tune", "--reset", "--dry-run"]).misused("--reset");
    fathom(["tune", "--quant", "q4_0"]).misused("MODEL");
    fathom(["tune"]).without_drivers().fails(&["no adapter found"]);
    if fathom(["devices", "--json"]).json() != json!([]) {
        fathom(["tune", "no/such/model"]).fails(&["no/such/model"]);
    }
}
