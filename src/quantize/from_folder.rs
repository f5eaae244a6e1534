//! What becomes of a folder of safetensors files: the names, shapes and metadata that llama.cpp's
//! converter gives its architecture.

use std::collections::HashSet;
use std::path::Path;

use super::Plan;
use super::kind::{Context, Kind};
use super::metadata::metadata;
use super::rows::Matrix;
use super::source::{Heads, Order, Planned, Rotated};
use super::tokenizer::vocabulary;
use crate::Result;
use crate::formats::{
    Checkpoint, Llama3, ModelConfig, RopeScaling, Weights, gguf_experts, gguf_parameters,
};

/// What names of tensors that are left out begin with: the drafter and what is for pictures, which
/// llama.cpp keeps in files of their own.
const LEFT_OUT: [&str; 4] = ["mtp.", "vision.", "aligner.", "image_"];
/// What names of tables end with that follow from the config, or that only pictures need.
const NEEDLESS: [&str; 2] = ["rotary_emb.inv_freq", "ffn.gate.bias_vl"];

/// Plans the new file.
pub(super) fn plan(checkpoint: &Checkpoint, folder: &Path, kind: Kind) -> Result<Plan> {
    let config = ModelConfig::from_checkpoint(checkpoint)?;
    let mut metadata = metadata(checkpoint, &config, folder, kind)?;
    metadata.extend(vocabulary(&config, folder)?);
    let tied = match &config {
        ModelConfig::Dense(c) => c.tied,
        ModelConfig::Mla(c) => c.tied,
        ModelConfig::V4(_) => false,
    };
    let (layers, (experts, ..)) = (config.layers(), config.experts());
    let mut planner = Planner {
        checkpoint,
        config: &config,
        official: matches!(config, ModelConfig::V4(_)),
        tied,
        tensors: vec![],
        used: HashSet::new(),
    };
    planner.parameters(None)?;
    planner.known_factors();
    for layer in 0..layers {
        planner.parameters(Some(layer))?;
        planner.experts(layer, experts)?;
    }
    let left_out = planner.left_out(layers)?;
    let context = Context { kind, layers, tied, experts: experts > 0 };
    Ok(Plan { metadata, tensors: planner.tensors, left_out, context })
}

struct Planner<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a ModelConfig,
    /// Whether the canonical names are DeepSeek's.
    official: bool,
    tied: bool,
    tensors: Vec<Planned>,
    /// Names of tensors in the files.
    used: HashSet<String>,
}

impl Planner<'_> {
    /// Notes that a tensor is used, if it is there, and the scales it may have.
    fn take(&mut self, name: &str) -> bool {
        let weights = Weights::new(self.checkpoint);
        let Some(stored) = weights.stored_name(name) else { return false };
        self.used.insert(stored);
        if let Some(stem) = name.strip_suffix("weight") {
            for tail in super::rows::SCALES {
                self.used.extend(weights.stored_name(&format!("{stem}{tail}")));
            }
        }
        true
    }

    /// Plans the tensors outside the layers, or of a layer without its experts.
    fn parameters(&mut self, layer: Option<usize>) -> Result<()> {
        for (name, gguf) in gguf_parameters(self.official, layer) {
            if !self.take(&name) || (self.tied && gguf == "output.weight") {
                continue;
            }
            let matrix = Matrix::open(self.checkpoint, &name)?;
            let shape = match matrix.view.shape[..] {
                [n] => vec![n],
                _ => vec![matrix.rows, matrix.cols],
            };
            self.tensors.extend(self.arranged(Planned::plain(gguf, shape, vec![name])));
        }
        Ok(())
    }

    /// The tensor or tensors that llama.cpp has in a tensor's stead.
    fn arranged(&self, plain: Planned) -> Vec<Planned> {
        let tail = plain.name.splitn(3, '.').nth(2).unwrap_or_default();
        let interleaved = |tails: &[&str], head, rotated| match tails.contains(&tail) {
            true => vec![Planned {
                order: Order::Interleaved(Rotated { head, rotated }),
                ..plain.clone()
            }],
            false => vec![plain.clone()],
        };
        match self.config {
            ModelConfig::Dense(c) if !c.qwen2 && !c.rope_interleaved => {
                let tails = ["attn_q.weight", "attn_q.bias", "attn_k.weight", "attn_k.bias"];
                interleaved(&tails, c.head_dim, c.head_dim)
            }
            ModelConfig::Mla(c) if tail == "attn_kv_b.weight" => {
                let heads = Heads { key: c.nope_dim, value: c.v_dim };
                let name = |half| plain.name.replace("attn_kv_b", half);
                let key = Planned {
                    name: name("attn_k_b"),
                    shape: vec![c.heads, c.kv_lora, c.nope_dim],
                    order: Order::KeyHalf(heads),
                    ..plain.clone()
                };
                let value = Planned {
                    name: name("attn_v_b"),
                    shape: vec![c.heads, c.v_dim, c.kv_lora],
                    order: Order::ValueHalf(heads),
                    ..plain
                };
                vec![key, value]
            }
            ModelConfig::Mla(c) if !c.rope_interleaved && tail == "attn_kv_a_mqa.weight" => {
                interleaved(&[tail], c.kv_lora + c.rope_dim, c.rope_dim)
            }
            ModelConfig::Mla(c) if !c.rope_interleaved => {
                let tails = ["attn_q.weight", "attn_q_b.weight"];
                interleaved(&tails, c.nope_dim + c.rope_dim, c.rope_dim)
            }
            _ => vec![plain],
        }
    }

    /// Plans the experts of a layer, if it has any.
    fn experts(&mut self, layer: usize, count: usize) -> Result<()> {
        for (parts, gguf) in gguf_experts(self.official, layer, count) {
            // Of all experts, whether they are there or not: whoever opens them will say.
            let there: Vec<bool> = parts.iter().map(|part| self.take(part)).collect();
            if there.contains(&true) {
                let first = Matrix::open(self.checkpoint, &parts[0])?;
                let shape = vec![count, first.rows, first.cols];
                self.tensors.push(Planned::plain(gguf, shape, parts));
            }
        }
        Ok(())
    }

    /// Plans the factors that frequencies are divided by, as Llama 3.1 does.
    fn known_factors(&mut self) {
        let ModelConfig::Dense(c) = self.config else { return };
        let half = c.head_dim / 2;
        let known = match &c.rope.scaling {
            RopeScaling::Factors(factors) => factors.clone(),
            RopeScaling::Llama3(stretch) => {
                let frequency = |i| c.rope.theta.powf(-(i as f32) / half as f32);
                (0..half).map(|i| factor(stretch, frequency(i))).collect()
            }
            _ => return,
        };
        let name = "rope_freqs.weight".to_owned();
        self.tensors.push(Planned { known, ..Planned::plain(name, vec![half], vec![]) });
    }

    /// The number of tensors that are left out on purpose; an error if any other would be.
    fn left_out(&self, layers: usize) -> Result<usize> {
        let drafter = |name: &str| {
            let layer = name.strip_prefix("model.layers.").and_then(|tail| tail.split_once('.'));
            layer.is_some_and(|(n, _)| n.parse::<usize>().is_ok_and(|n| n >= layers))
        };
        let mut count = 0;
        for name in self.checkpoint.names().filter(|&name| !self.used.contains(name)) {
            if LEFT_OUT.iter().any(|l| name.starts_with(l)) || drafter(name) {
                count += 1;
            } else if !NEEDLESS.iter().any(|n| name.ends_with(n)) {
                let what = "has no place in a GGUF file of this architecture";
                let view = self.checkpoint.tensor(name)?;
                return Err(view.error(what));
            }
        }
        Ok(count)
    }
}

/// What Llama 3.1 divides a frequency by.
fn factor(l: &Llama3, frequency: f32) -> f32 {
    let turns = l.original_context as f32 * frequency / std::f32::consts::TAU;
    let smooth = ((turns - l.low_freq) / (l.high_freq - l.low_freq)).clamp(0.0, 1.0);
    1.0 / ((1.0 - smooth) / l.factor + smooth)
}
