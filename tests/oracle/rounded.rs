//! Rounding of activations, against DeepSeek's own model code (see `scripts/fixtures/rounded.py`).

use std::path::{Path, PathBuf};

use fathom::formats::{Checkpoint, Qat};
use fathom::runtime::{Backend, Engine, EngineOptions, Prompt, Session};
use safetensors::SafeTensors;

use crate::{TOLERANCE, common};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rounded").join(name)
}

/// Errors a position, relative to the root mean square of all logits.
fn errors(got: &[f32], expected: &[f32], vocab: usize) -> Vec<f64> {
    let square: f64 = expected.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let rms = (square / expected.len() as f64).sqrt();
    let worst = |(got, expected): (&[f32], &[f32])| {
        let apart = got.iter().zip(expected).map(|(a, b)| f64::from((a - b).abs()));
        apart.fold(0.0, f64::max) / rms
    };
    got.chunks(vocab).zip(expected.chunks(vocab)).map(worst).collect()
}

/// A number within float32's errors of a tie may round either way, and then upsets its position by
/// more than those. So nearly all positions must agree as closely as without rounding, which none
/// would if anything were rounded elsewhere or otherwise.
fn check(name: &str) {
    let checkpoint = Checkpoint::open(folder(name)).unwrap();
    let bytes = std::fs::read(folder(name).join("expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let ids: Vec<u32> = bytemuck::pod_collect_to_vec(file.tensor("ids").unwrap().data());
    let mut backends = vec![Backend::Cpu];
    if common::gpu().is_some() {
        backends.push(Backend::Gpu);
    }
    for backend in backends {
        for (qat, part) in [
            ("off", Some(Qat::Off)),
            ("kv", Some(Qat::Kv)),
            ("kv", None),
            ("full", Some(Qat::Full)),
        ] {
            let expected: Vec<f32> = bytemuck::pod_collect_to_vec(file.tensor(qat).unwrap().data());
            let options = EngineOptions {
                backend,
                context: Some(ids.len()),
                outs: usize::MAX,
                qat: part,
                ..EngineOptions::default()
            };
            let mut engine = Engine::load(&checkpoint, &options, &mut |_, _, _| {}).unwrap();
            for chunk in [1024, 7, 1] {
                let prompt = Prompt::from_ids(&ids, &engine.config, vec![]).unwrap();
                let mut got = vec![];
                let mut take = |rows: &[f32]| {
                    got.extend_from_slice(rows);
                    Ok(())
                };
                Session::new(&mut engine).logits(prompt, chunk, &mut take).unwrap();
                let errors = errors(&got, &expected, expected.len() / ids.len());
                let alike = errors.iter().filter(|&&e| e <= TOLERANCE).count();
                let worst = errors.iter().copied().fold(0.0, f64::max);
                let of = errors.len();
                println!(
                    "{name} {qat} {backend:?} chunk {chunk}: {alike} of {of}, worst {worst:.1e}"
                );
                let least = if qat == "off" { of } else { of * 9 / 10 };
                assert!(alike >= least, "{name}, rounding {qat}, on {backend:?}: {alike} of {of}");
            }
        }
    }
}

#[test]
fn csa_is_rounded_as_the_reference_rounds_it() {
    check("csa");
}

#[test]
fn hca_is_rounded_as_the_reference_rounds_it() {
    check("hca");
}
