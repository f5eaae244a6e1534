//! Arguments, devices and what each subcommand prints.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use super::{Fathom, fathom, file, on_cpu, wait};

fn logits(tokens: &str, out: &Path) -> (tempfile::TempDir, Fathom) {
    let (folder, path) = file("tokens.json", tokens);
    (folder, on_cpu("logits --tokens").arg(path).arg("--out").arg(out))
}

#[test]
fn help_has_examples() {
    for command in
        ["run", "devices", "inspect", "verify", "logits", "eval", "quantize", "bench", "tune"]
    {
        let help = fathom([command, "--help"]).succeeds();
        assert!(help.contains("Examples:\n  fathom "), "{help}");
        assert!(fathom(["--help"]).succeeds().contains(command));
    }
    assert!(fathom(["--version"]).succeeds().starts_with("fathom "));
    fathom(["dive"]).misused("dive");
    fathom([""; 0]).misused("Usage");
}

#[test]
fn reports_are_json() {
    let report = fathom(["inspect", "--json"]).json();
    assert_eq!(report["architecture"], "DeepseekV4ForCausalLM");
    assert_eq!(
        (&report["runnable"], &report["not_runnable_because"]),
        (&json!(true), &Value::Null)
    );
    for name in [
        "parameters",
        "active_parameters",
        "layers",
        "window_layers",
        "csa_layers",
        "hca_layers",
        "hidden",
        "heads",
        "head_dim",
        "experts",
        "experts_per_token",
        "shared_experts",
        "vocabulary",
        "vision_layers",
        "max_context",
        "tensors",
    ] {
        assert!(report[name].as_u64().is_some_and(|n| n > 0), "{name}: {report}");
    }
    let sum: u64 = ["weight_bytes", "state_bytes", "scratch_bytes"]
        .map(|name| report["memory"][name].as_u64().unwrap())
        .iter()
        .sum();
    assert_eq!(report["memory"]["total_bytes"], sum);
    fathom(["inspect", "--context", "100000"]).fails(&["100000", "takes up to"]);
    fathom(["inspect", "--context", "0"]).misused("--context");
    fathom(["inspect", "--chunk", "4294967295"]).succeeds();

    let devices = fathom(["devices", "--json"]).json();
    for device in devices.as_array().unwrap() {
        assert!(device["name"].is_string() && device["tier"].is_string(), "{device}");
    }

    let reply = on_cpu("run --json --max-tokens 8 -p hello").json();
    assert_eq!(reply["model"], "minnow");
    for name in ["device", "reasoning", "answer", "finish"] {
        assert!(reply[name].is_string(), "{name}: {reply}");
    }
    for name in ["prompt_tokens", "reply_tokens"] {
        assert!(reply[name].as_u64().is_some_and(|n| n > 0), "{name}: {reply}");
    }
    for name in ["first_token_seconds", "decode_seconds"] {
        assert!(reply[name].as_f64().is_some_and(|n| n >= 0.0), "{name}: {reply}");
    }

    let scores = on_cpu("eval --json --task direction --count 2").json();
    assert_eq!(scores["tasks"][0]["questions"], 2);
    on_cpu("eval --count 0 --task direction").misused("--count");
    on_cpu("eval --count 99999999999 --task direction").misused("--count");
    on_cpu("eval --task juggling").fails(&["no task `juggling`"]);
    on_cpu("eval --task easy-vqa").fails(&["--easy-vqa"]);
    on_cpu("eval --task easy-vqa --easy-vqa no/such").fails(&["no/such"]);
}

#[test]
fn prompts_that_do_not_fit() {
    on_cpu("run").fails(&["there is no question"]);
    on_cpu("run -p").arg("").fails(&["there is no question"]);
    let long = "what is the color of the circle that stands to the left of the square?";
    on_cpu("run --context 16 -p").arg(long).fails(&["the prompt has", "the context 16"]);
    on_cpu("run --context 16 -p hello --image samples/scene.png").fails(&["the context 16"]);
    // A reply ends where the context does.
    on_cpu("run --context 16 -p hi").succeeds();
    on_cpu("run --context 0 -p hello").misused("--context");
    on_cpu("run --context 100000 -p hello").fails(&["100000", "the model takes 1 to"]);
    on_cpu("run --context 99999999999 -p hello").misused("--context");
}

#[test]
fn sampling_options_are_checked() {
    let with = |options: &str| on_cpu(&format!("run -p hello --max-tokens 2 {options}"));
    with("--top-p 2").fails(&["--top-p"]);
    with("--top-p -1").fails(&["--top-p"]);
    with("--top-p nan").fails(&["--top-p"]);
    with("--min-p 1.5").fails(&["--min-p"]);
    with("--temperature -1").fails(&["--temperature"]);
    with("--temperature inf").fails(&["--temperature"]);
    with("--seed -1").misused("-1");
    with("--top-k -1").misused("-1");
    with("--think hard").misused("--think");
    on_cpu("run -p hello --max-tokens 0").misused("--max-tokens");
    for extreme in ["0.000000000000000000000000000000000000000000001", "1e38"] {
        with(&format!("--top-p 0 --top-k 1 --min-p 1 --temperature {extreme}")).succeeds();
        with(&format!("--top-k 4294967295 --temperature {extreme}")).succeeds();
    }
}

#[test]
fn token_lists_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("logits.safetensors");
    for (tokens, part) in [
        ("", "not a JSON list of token ids"),
        ("hello", "not a JSON list of token ids"),
        ("{\"ids\": [1]}", "not a JSON list of token ids"),
        ("[1, -2]", "not a JSON list of token ids"),
        ("[1, 4294967296]", "not a JSON list of token ids"),
    ] {
        let (_folder, run) = logits(tokens, &out);
        run.fails(&["tokens.json", part]);
    }
    for (tokens, part) in [
        ("[]", "the prompt is empty"),
        ("[1, 4294967295]", "token 1 is 4294967295"),
        ("[1, 2, 772]", "token 2 is 772"),
    ] {
        let (_folder, run) = logits(tokens, &out);
        run.fails(&[part]);
    }
    let many = vec![1; 5000];
    logits(&json!(many).to_string(), &out).1.fails(&["a context of 5000 tokens"]);
    let picture = "samples/scene.png";
    let (_folder, run) = logits("[1, 2, 3]", &out);
    run.arg("--image").arg(picture).fails(&["1 pictures were given", "0 image blocks"]);
    // START where a PAD must be, and a block that ends early.
    for (tokens, part) in [("[1, 772, 773]", "token 1 is 772"), ("[1, 773, 773]", "missing")] {
        let (_folder, run) = logits(tokens, &out);
        run.arg("--image").arg(picture).fails(&[part, "the block of picture 0"]);
    }
    assert!(!out.exists());
    let (_folder, run) = logits("[1, 2]", Path::new("no/such/folder/logits.safetensors"));
    run.fails(&["no/such/folder/logits.safetensors"]);
    let (_folder, run) = logits("[1, 2]", folder.path());
    run.fails(&[folder.path().to_str().unwrap()]);
    on_cpu("logits --tokens no/such.json --out x").fails(&["no/such.json"]);
    fathom(["logits"]).misused("--tokens");
}

#[test]
fn logits_are_the_same_bytes_every_time() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = |name: &str| {
        let out = folder.path().join(name);
        let (_folder, run) = logits("[0, 5, 9, 300, 41, 7, 7, 7, 512, 700]", &out);
        run.succeeds();
        std::fs::read(out).unwrap()
    };
    let first = bytes("first");
    on_cpu("run --temperature 1 --seed 7 -p hello --image samples/scene.png").succeeds();
    assert!(first == bytes("second"));
    let file = safetensors::SafeTensors::deserialize(&first).unwrap();
    assert_eq!(file.tensor("logits").unwrap().shape(), [10, 772]);
}

#[test]
fn without_a_driver_the_cpu_answers() {
    let done = fathom(["run", "-p", "repeat: red"]).without_drivers().done();
    assert_eq!((done.code, done.out.trim()), (Some(0), "red"), "{}", done.err);
    assert!(done.err.contains("CPU reference path: no GPU adapter was found"), "{}", done.err);
    for command in ["run -p hello --backend gpu", "run -p hello --adapter 0", "verify"] {
        fathom(command.split(' ')).without_drivers().fails(&["no adapter found", "driver"]);
    }
    assert_eq!(fathom(["devices", "--json"]).without_drivers().json(), json!([]));
    assert!(fathom(["devices"]).without_drivers().succeeds().contains("No GPU adapter found"));
}

#[test]
fn devices_that_are_not_there() {
    on_cpu("run -p hello --adapter 0").fails(&["adapter", "CPU"]);
    fathom(["run", "-p", "hello", "--backend", "tpu"]).misused("--backend");
    let tier = |command: &str| fathom(command.split(' ')).env("FATHOM_TIER", "nonsense");
    tier("devices").fails(&["FATHOM_TIER=nonsense", "core, subgroups"]);
    tier("run -p hello").fails(&["FATHOM_TIER=nonsense"]);
    if fathom(["devices", "--json"]).json() == json!([]) {
        eprintln!("NOT RUN ON A GPU: no adapter");
        return;
    }
    fathom(["run", "-p", "hello", "--adapter", "abacus"]).fails(&["no adapter called `abacus`"]);
    fathom(["run", "-p", "hello", "--adapter", "99"]).fails(&["no adapter 99"]);
    fathom(["verify"]).env("FATHOM_ADAPTER", "abacus").fails(&["no adapter called `abacus`"]);
}

/// Whoever reads stops reading: no panic, and no complaint.
#[test]
fn closed_pipes() {
    for args in [
        &["inspect"][..],
        &["devices"],
        &["inspect", "--json"],
        &["run", "--help"],
        &["run", "-p", "hello", "--backend", "cpu"],
    ] {
        let Fathom(mut command) = fathom(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let err = super::drain(child.stderr.take());
        let code = wait(&mut child, "a command with a closed pipe");
        let err = err.join().unwrap();
        assert!(code.is_some_and(|c| c != 101) && !err.contains("panicked"), "{args:?}: {err}");
        assert!(!err.contains("roken pipe"), "{args:?}: {err}");
    }
    for args in [&["inspect", "no/such"][..], &["run", "-p", "hello", "--backend", "cpu"]] {
        let Fathom(mut command) = fathom(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stderr.take());
        let code = wait(&mut child, "a command with a closed pipe");
        assert!(code.is_some_and(|c| c <= 1), "{args:?}: {code:?}");
    }
}

#[test]
fn bench_reports_can_be_compared() {
    let text = on_cpu("bench -p 3,2 -n 2 -d 0,4 -r 2 --json").succeeds();
    let report: Value = serde_json::from_str(&text).unwrap();
    let speeds = report["speeds"].as_array().unwrap();
    let tests: Vec<_> = speeds.iter().map(|s| s["test"].as_str().unwrap()).collect();
    assert_eq!(tests, ["pp3", "pp2", "tg2", "pp3 @ d4", "pp2 @ d4", "tg2 @ d4"]);
    assert!(speeds.iter().all(|s| s["samples"].as_array().unwrap().len() == 2));
    assert!(speeds.iter().all(|s| s["mean"].as_f64().unwrap() > 0.0));

    let (folder, path) = file("here.json", &text);
    let path = path.to_str().unwrap();
    let table = fathom(["bench", "--compare", path, path, "--csv"]).succeeds();
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("test,\"minnow, ") && lines.len() == 7, "{table}");
    let cells: Vec<_> = lines[1].split(',').collect();
    assert!(cells[0] == "pp3" && cells[1] == cells[2], "{table}");

    let plot = folder.path().join("plot.svg");
    fathom(["bench", "--compare", path, path, "--plot"]).arg(&plot).succeeds();
    let drawn = std::fs::read_to_string(&plot).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains("pp3 @ d4, tokens/s"), "{drawn}");
    fathom(["bench", "--plot"]).arg(&plot).misused("--compare");

    let (_folder, path) = file("other.json", "{}");
    fathom(["bench", "--compare"]).arg(path).fails(&["other.json", "not a report", "fathom"]);
    on_cpu("bench -p 9000 -n 0").fails(&["context", "9001"]);
    on_cpu("bench -r 0").misused("0");
}
