//! `fathom quantize`.

use super::fathom;

const MODEL: &str = "tests/fixtures/oracle/qwen2";

#[test]
fn quantize_writes_a_file_that_other_commands_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.gguf");
    let to_path = |kind: &str| fathom(["quantize", MODEL, "--type", kind]).arg(&path);
    let report = to_path("q8_0").arg("--json").json();
    assert_eq!(report["tensors"], 26);
    let bytes = report["bytes_by_format"].as_object().unwrap();
    assert_eq!(bytes.values().filter_map(|b| b.as_u64()).sum::<u64>(), report["bytes"]);
    let seen = fathom(["inspect", "--json"]).arg(&path).json();
    assert_eq!(seen["architecture"], "Qwen2ForCausalLM");

    to_path("q4_k").fails(&["q.gguf: is there already", "--force"]);
    let text = to_path("q4_k").arg("--force").succeeds();
    assert!(text.starts_with("26 tensors, ") && text.contains("as Q4_K does not fit"), "{text}");
}

#[test]
fn quantize_tells_what_is_wrong_with_its_arguments() {
    let to = |out: &str| fathom(["quantize", MODEL, out]);
    to("x.gguf").misused("--type");
    to("x.gguf").args(["--type", "q9"]).misused("q9");
    to("x.bin").args(["--type", "f16"]).fails(&["x.bin", "ends in .gguf"]);
    let missing = ["quantize", "no/such", "x.gguf", "--type", "f16"];
    fathom(missing).fails(&["no/such"]);
}
