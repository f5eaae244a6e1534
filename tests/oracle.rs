//! Logits against implementations nobody here wrote: the tiny random checkpoints of
//! `tests/fixtures/oracle` (see its README), in one piece, in chunks of 7 and token by token.

mod common;
#[path = "oracle/gguf.rs"]
mod gguf;
#[path = "oracle/rounded.rs"]
mod rounded;

use std::path::{Path, PathBuf};

use fathom::formats::{Checkpoint, Qat, Weights};
use fathom::gpu::Limits;
use fathom::media;
use fathom::models::{Activations, ModelWeights};
use fathom::runtime::verify::verify;
use fathom::runtime::{Backend, Engine, EngineOptions, Prompt, PromptRow, Sampling, Session};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// Largest difference allowed, relative to the root mean square of the reference's logits.
const TOLERANCE: f64 = 2e-4;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/oracle").join(name)
}

struct Expected {
    ids: Vec<u32>,
    logits: Vec<f32>,
}

fn expected(name: &str) -> Expected {
    read(&folder(name).join("expected.safetensors"))
}

fn read(path: &Path) -> Expected {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let data = |name| file.tensor(name).unwrap().data().to_vec();
    let ids: Vec<u32> = bytemuck::pod_collect_to_vec(&data("ids"));
    Expected { ids, logits: bytemuck::pod_collect_to_vec(&data("logits")) }
}

fn pictures(name: &str) -> Vec<PathBuf> {
    (0..).map(|i| folder(name).join(format!("image.{i}.png"))).take_while(|p| p.exists()).collect()
}

fn engine(name: &str, backend: Backend) -> Engine {
    load(&Checkpoint::open(folder(name)).unwrap(), expected(name).ids.len(), backend)
}

fn load(checkpoint: &Checkpoint, context: usize, backend: Backend) -> Engine {
    let options = EngineOptions {
        backend,
        context: Some(context),
        chunk: 1024,
        outs: usize::MAX,
        qat: Some(Qat::Off),
        activations: Activations::F32,
        ..EngineOptions::default()
    };
    Engine::load(checkpoint, &options, &mut |_, _, _| {}).unwrap()
}

fn logits(engine: &mut Engine, ids: &[u32], pictures: &[PathBuf], chunk: usize) -> Vec<f32> {
    let mut encoded = vec![];
    for path in pictures {
        let plan = engine.plan_config().unwrap();
        let patches = media::prepare(&media::picture::read(path).unwrap(), &plan).unwrap();
        encoded.push(engine.encode(patches).unwrap());
    }
    let prompt = Prompt::from_ids(ids, &engine.config, encoded).unwrap();
    let mut out = vec![];
    let mut session = Session::new(engine);
    session
        .logits(prompt, chunk, &mut |rows| {
            out.extend_from_slice(rows);
            Ok(())
        })
        .unwrap();
    out
}

fn check(name: &str) {
    check_checkpoint(name, &Checkpoint::open(folder(name)).unwrap(), &expected(name));
}

/// Holds `checkpoint` against what is expected of it; its pictures are those of the fixture `name`.
fn check_checkpoint(name: &str, checkpoint: &Checkpoint, expected: &Expected) {
    let (ids, pictures) = (&expected.ids, pictures(name));
    let mut backends = vec![Backend::Cpu];
    if common::gpu().is_some() {
        backends.push(Backend::Gpu);
    }
    for backend in backends {
        let mut engine = load(checkpoint, ids.len(), backend);
        let mut run = |chunk| logits(&mut engine, ids, &pictures, chunk);
        for chunk in [1024, 7, 1] {
            let e = common::error(&run(chunk), &expected.logits);
            println!("{name} {backend:?} chunk {chunk}: {e:.2e}");
            assert!(e <= TOLERANCE, "{name} on {backend:?} in chunks of {chunk}: error {e:.2e}");
        }
        // The same bits again, whatever ran in between.
        assert!(run(7) == run(7), "{name} on {backend:?} is not reproducible");
    }
}

macro_rules! fixtures {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*
    };
}

fixtures! {
    text_hf_names text_hf_saved text_official text_bf16 text_f16 text_fp8_fp4 text_long
    vision_one vision_four
    llama llama_bias qwen2 v2 v2_lite v3 v3_fp8 v32
}

/// Logits of all positions, a token at a time, on a device with other limits; and dispatches a token.
fn decoded(name: &str, limits: fn(&mut Limits)) -> (Vec<f32>, Option<usize>) {
    let (checkpoint, ids) = (Checkpoint::open(folder(name)).unwrap(), expected(name).ids);
    let options = EngineOptions {
        backend: Backend::Gpu,
        context: Some(ids.len()),
        qat: Some(Qat::Off),
        limits: Some(limits),
        ..EngineOptions::default()
    };
    let mut engine = Engine::load(&checkpoint, &options, &mut |_, _, _| {}).unwrap();
    (logits(&mut engine, &ids, &[], 1), engine.dispatches())
}

/// As soon as anything can be a chain.
fn chained(limits: &mut Limits) {
    limits.chains_from = limits.serial_lanes.min(1) as usize;
}

/// Kernels of a layer in one dispatch do what they do in one each.
#[test]
fn chains_give_the_same_bits() {
    let Some(gpu) = common::gpu() else { return };
    // Wide subgroups take compilers minutes.
    let wide = gpu.limits.serial_lanes > 8;
    let names = ["llama_bias", "v3", "text_official"];
    for &name in if wide { &names[..1] } else { &names } {
        let (apart, many) = decoded(name, |limits| limits.chains_from = 0);
        let (chained, fewer) = decoded(name, chained);
        assert!(apart == chained, "{name}: other logits in chains");
        assert_eq!(fewer < many, gpu.limits.serial_lanes > 0, "{name}: {fewer:?} of {many:?}");
    }
}

/// Where the two layers are in buffers of their own, each is a chain, which both share a pipeline; where
/// buffers end amid a layer, there are more chains. Either way they do the same.
#[test]
fn chains_of_layers_in_several_buffers_give_the_same_bits() {
    let Some(gpu) = common::gpu() else { return };
    if !(1..=8).contains(&gpu.limits.serial_lanes) {
        return println!("skipped: {} has no chains of several layers", gpu.report);
    }
    let (one, fewest) = decoded("llama_bias", chained);
    let (each, two) = decoded("llama_bias", |limits| {
        chained(limits);
        limits.shared_bytes = 24 << 10;
    });
    let (amid, more) = decoded("llama_bias", |limits| {
        chained(limits);
        limits.shared_bytes = 50 << 10;
    });
    assert!(one == each && one == amid, "other logits in other buffers");
    // Others bind too few buffers for a chain of more than a few kernels.
    if gpu.report.storage_buffers >= 40 {
        assert_eq!(two, fewest.map(|n| n + 1));
        assert!(more > two, "{more:?} dispatches");
    }
}

/// Every op of every family on the GPU against its reference.
#[test]
fn ops_agree_with_their_references() {
    if common::gpu().is_none() {
        return;
    }
    for name in ["llama", "qwen2", "v2", "v3", "v3_fp8", "v32"] {
        let mut engine = engine(name, Backend::Gpu);
        let checkpoint = Checkpoint::open(folder(name)).unwrap();
        let mut weights = ModelWeights::new(Weights::new(&checkpoint));
        engine.declare(&mut weights).unwrap();
        let prompt = Prompt::from_ids(&expected(name).ids, &engine.config, vec![]).unwrap();
        let reports = verify(&mut engine, &weights, &prompt, None, &mut |_, _| {}).unwrap();
        assert!(reports.iter().any(|r| r.op == "causal_attention"), "{name}: {reports:?}");
        for report in reports {
            assert!(report.passed, "{name}: {report:?}");
        }
    }
}

/// A conversation that goes back beyond any chunk: models that keep every position compute only what
/// is new, and go on as if they had never read the rest.
#[test]
fn going_back() {
    for name in ["llama", "v32"] {
        let ids = expected(name).ids;
        let options = EngineOptions { backend: Backend::Cpu, chunk: 4, ..EngineOptions::default() };
        let checkpoint = Checkpoint::open(folder(name)).unwrap();
        let mut engine = Engine::load(&checkpoint, &options, &mut |_, _, _| {}).unwrap();
        let tokens = |parts: &[&[u32]]| {
            let rows = parts.concat().into_iter().map(PromptRow::Token).collect();
            Prompt { rows, ..Prompt::default() }
        };
        let (long, other) = (tokens(&[&ids]), tokens(&[&ids[..20], &ids[40..47]]));
        let sampling = Sampling::default();
        let reply = |session: &mut Session<'_>, prompt: &Prompt| {
            let mut steps = vec![];
            let fed = session.feed(prompt.clone(), &sampling, &mut |done, _| steps.push(done));
            let mut reply = vec![fed.unwrap()];
            for _ in 0..4 {
                reply.push(session.next(reply[reply.len() - 1], &sampling).unwrap());
            }
            (reply, steps)
        };
        let (expected, steps) = reply(&mut Session::new(&mut engine), &other);
        assert_eq!(steps, [4, 8, 12, 16, 20, 24, 27]);
        let mut session = Session::new(&mut engine);
        reply(&mut session, &long);
        assert_eq!(reply(&mut session, &other), (expected, vec![24, 27]), "{name}");
    }
}

/// A checkpoint with the halves of `kv_b_proj` apart, that of the keys transposed, as newer GGUF
/// files have them.
#[test]
fn halves_of_kv_b_proj() {
    let name = "v3";
    let file = std::fs::read(folder(name).join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&file).unwrap();
    let (heads, nope, value, lora) = (3, 14, 13, 26);
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = vec![];
    for (tensor, view) in file.iter() {
        let Some(attention) = tensor.strip_suffix("kv_b_proj.weight") else {
            tensors.push((tensor.into(), view.shape().into(), view.data().into()));
            continue;
        };
        let all: Vec<f32> = bytemuck::pod_collect_to_vec(view.data());
        let (mut k, mut v) = (vec![], vec![]);
        for head in all.chunks_exact((nope + value) * lora) {
            let (keys, values) = head.split_at(nope * lora);
            k.extend((0..lora).flat_map(|c| (0..nope).map(move |r| keys[r * lora + c])));
            v.extend_from_slice(values);
        }
        let bytes = |x: &[f32]| bytemuck::cast_slice(x).to_vec();
        tensors.push((format!("{attention}k_b_proj.weight"), vec![heads * lora, nope], bytes(&k)));
        tensors.push((format!("{attention}v_b_proj.weight"), vec![heads * value, lora], bytes(&v)));
    }
    let views = tensors.iter().map(|(name, shape, data)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap().leak();
    let config = std::fs::read_to_string(folder(name).join("config.json")).unwrap();
    let checkpoint = Checkpoint::from_static(&config, bytes).unwrap();
    check_checkpoint(name, &checkpoint, &expected(name));
}

/// A context whose state no device can bind: the tensor is named, and what to do.
#[test]
fn a_context_larger_than_a_buffer() {
    if common::gpu().is_none() {
        return;
    }
    let config = std::fs::read_to_string(folder("v3").join("config.json")).unwrap();
    let config =
        config.replace("\"max_position_embeddings\": 192", "\"max_position_embeddings\": 16777216");
    let bytes = std::fs::read(folder("v3").join("model.safetensors")).unwrap();
    let checkpoint = Checkpoint::from_static(&config, bytes.leak()).unwrap();
    // 2^24 positions of 36 numbers: 2,304 MiB.
    let options = EngineOptions {
        backend: Backend::Gpu,
        context: Some(1 << 24),
        chunk: 1,
        ..EngineOptions::default()
    };
    let e = Engine::load(&checkpoint, &options, &mut |_, _, _| {}).unwrap_err().to_string();
    let parts =
        ["`model.layers.0.self_attn.latent` takes 2304 MiB", "a smaller --context takes less"];
    assert!(parts.iter().all(|part| e.contains(part)), "{e}");
}

/// A chunk, and an image span, of more rows than a step has logits for.
#[test]
fn logits_in_several_runs() {
    let name = "vision_four";
    let checkpoint = Checkpoint::open(folder(name)).unwrap();
    let options = EngineOptions { backend: Backend::Cpu, outs: 5, ..EngineOptions::default() };
    let mut engine = Engine::load(&checkpoint, &options, &mut |_, _, _| {}).unwrap();
    let expected = expected(name);
    let got = logits(&mut engine, &expected.ids, &pictures(name), 30);
    let e = common::error(&got, &expected.logits);
    assert!(e <= TOLERANCE, "error {e:.2e}");
}

/// Pixels and aligner rows of each picture, to tell a fault of the eye from one of the mind.
#[test]
fn pictures_are_prepared_and_seen_alike() {
    for name in ["vision_one", "vision_four"] {
        let bytes = std::fs::read(folder(name).join("expected.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let floats = |name: String| -> Vec<f32> {
            bytemuck::pod_collect_to_vec(file.tensor(&name).unwrap().data())
        };
        let mut engine = engine(name, Backend::Cpu);
        let plan = engine.plan_config().unwrap();
        for (i, path) in pictures(name).iter().enumerate() {
            let patches = media::prepare(&media::picture::read(path).unwrap(), &plan).unwrap();
            let e = common::error(&patches.data, &floats(format!("image.{i}.patches")));
            assert!(e < 1e-6, "{name}: pixels of picture {i}: error {e:.2e}");
            let rows = engine.encode(patches).unwrap();
            let e = common::error(&rows.tokens, &floats(format!("image.{i}.rows")));
            assert!(e < 1e-4, "{name}: aligner rows of picture {i}: error {e:.2e}");
        }
    }
}
