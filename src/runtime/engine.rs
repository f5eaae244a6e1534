//! A loaded model on one device.

use std::ops::Range;
use std::sync::Arc;

use super::image::{self, Cache};
use super::{Encoded, GraphId, Out, Prompt, PromptRow, Runner, Sampling};
use crate::formats::{BlockFormat, Checkpoint, ModelConfig, Qat, Weights};
use crate::gpu::{Gpu, GpuGraph, Limits, adapters};
use crate::graph::reference::Data;
use crate::graph::{Graph, Home, StepSize, TensorId};
use crate::media::{Patches, PlanConfig};
use crate::models::deepseek_v4_vision::{VisionTensors, largest, vision_graph};
use crate::models::{Activations, Capacity, ModelWeights, TextTensors, text_graph};
use crate::{Error, Result};

/// What to run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// The GPU, or the CPU reference where there is no adapter at all.
    #[default]
    Auto,
    /// The GPU, or an error.
    Gpu,
    /// The CPU reference.
    Cpu,
}

/// How to load a model.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// What to run on.
    pub backend: Backend,
    /// Which adapter, by index or part of its name; see [`Gpu::open`].
    pub adapter: Option<String>,
    /// Tokens a sequence may have; `None` takes the model's own limit, up to 8,192.
    pub context: Option<usize>,
    /// Rows of a prefill step. A model that sees takes at least its largest picture.
    pub chunk: usize,
    /// Rows of a step whose logits can be had at once.
    pub outs: usize,
    /// How a V4 model's activations are rounded; `None` takes what its checkpoint suggests.
    pub qat: Option<Qat>,
    /// What matrices are quantised to while they are loaded; `None` keeps them as they are stored.
    pub quant: Option<BlockFormat>,
    /// What the inputs of quantised matrices are rounded to.
    pub activations: Activations,
    /// Whether kernels are those that `fathom tune` has chosen, if it has for this adapter; else they
    /// are the defaults.
    pub tuned: bool,
    /// Changes what kernels may count on, once the device is open: for tests.
    pub limits: Option<fn(&mut Limits)>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        let backend = Backend::Auto;
        Self {
            backend,
            adapter: None,
            context: None,
            chunk: 512,
            outs: 1,
            qat: None,
            quant: None,
            activations: Activations::F32,
            tuned: true,
            limits: None,
        }
    }
}

/// Told what is being done, and how much of it is done and in all: bytes of `weights`, and bytes
/// again while `shaders` are read; or a number of `kernels` that a software driver compiles.
pub type Progress<'a> = &'a mut dyn FnMut(&str, u64, u64);

/// Context that is allocated when none is asked for.
const DEFAULT_CONTEXT: usize = 8192;

/// The step of a decode graph.
const ONE: StepSize = StepSize { rows: 1, outs: 1 };

/// A model ready to run.
#[derive(Debug)]
pub struct Engine {
    /// The model's dimensions.
    pub config: ModelConfig,
    /// Tokens a sequence may have.
    pub context: usize,
    /// Rows of a prefill step.
    pub chunk: usize,
    /// One line on what it runs on and why.
    pub device: String,
    quant: Option<BlockFormat>,
    activations: Activations,
    max_outs: usize,
    runner: Runner,
    prefill: Part<TextTensors>,
    decode: Part<TextTensors>,
    vision: Option<Part<VisionTensors>>,
    cache: Cache,
}

/// A graph and the tensors to feed and read.
#[derive(Debug)]
pub(super) struct Part<T> {
    pub graph: GraphId,
    pub tensors: T,
}

/// What to read back after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Nothing,
    Tokens,
    Logits,
}

impl Engine {
    /// Loads the model in `checkpoint`.
    ///
    /// # Errors
    /// If the model is of another architecture or incomplete, or the device cannot hold it.
    pub fn load(
        checkpoint: &Checkpoint,
        options: &EngineOptions,
        progress: Progress<'_>,
    ) -> Result<Self> {
        let mut config = ModelConfig::from_checkpoint(checkpoint)?;
        options.qat.map_or(Ok(()), |qat| config.set_qat(qat))?;
        let (gpu, device) = open(options)?;
        let limit = config.max_context();
        let context = options.context.unwrap_or(limit.min(DEFAULT_CONTEXT));
        if context == 0 || context > limit {
            return Err(Error::Request(format!(
                "a context of {context} tokens: the model takes 1 to {limit}"
            )));
        }
        let capacity = Capacity::new(&config, context, options.chunk);
        let chunk = capacity.chunk;
        // Logits of all output rows must fit one binding.
        let row = (config.vocab() * size_of::<f32>()) as u64;
        let fit = gpu.as_ref().map_or(u64::MAX, |g| (g.limits.max_binding_bytes / row).max(1));
        let max_outs = options.outs.clamp(1, chunk).min(fit.try_into().unwrap_or(usize::MAX));

        let mut weights = ModelWeights::new(Weights::new(checkpoint));
        weights.quantize_to(options.quant);
        weights.multiply_with(options.activations);
        let most = StepSize { rows: chunk, outs: max_outs };
        let prefill = text_graph(&config, &mut weights, capacity, most)?;
        let vision = match config.vision() {
            Some(v) => Some(vision_graph(config.hidden(), v, &mut weights, largest(v))?),
            None => None,
        };
        if gpu.as_ref().is_some_and(|g| g.limits.serial_lanes > 0) {
            // With one row loads are what takes time there, and rounding it is more work than it saves.
            weights.multiply_with(Activations::F32);
        }
        let decode = text_graph(&config, &mut weights, capacity, ONE)?;

        let bytes = |g: &Graph| -> u64 {
            let weights = g.tensors().iter().filter(|t| t.home == Home::Weight);
            weights.map(|t| t.bytes(t.rows.fixed) as u64).sum()
        };
        let text_bytes = bytes(&prefill.0);
        let total = text_bytes + vision.as_ref().map_or(0, |v| bytes(&v.0));
        let mut runner = Runner::new(gpu);
        let mut add = |graph: Graph, before: u64| {
            runner.add(graph, &weights, &mut |what, n| progress(what, before + n, total))
        };
        // The graphs share scratch, so the largest comes first.
        let prefill = Part { graph: add(prefill.0, 0)?, tensors: prefill.1 };
        let decode = Part { graph: add(decode.0, text_bytes)?, tensors: decode.1 };
        let vision = match vision {
            Some((graph, tensors)) => Some(Part { graph: add(graph, text_bytes)?, tensors }),
            None => None,
        };
        runner.warm(&[prefill.graph, decode.graph], &mut |n, all| progress("kernels", n, all))?;
        let cache = Cache::default();
        Ok(Self {
            config,
            context,
            chunk,
            device,
            quant: options.quant,
            activations: options.activations,
            max_outs,
            runner,
            prefill,
            decode,
            vision,
            cache,
        })
    }

    /// Declares the weights of this engine's graphs to `weights`, so that another store can be
    /// filled with them.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn declare(&self, weights: &mut ModelWeights<'_>) -> Result<()> {
        let capacity = Capacity::new(&self.config, self.context, self.chunk);
        weights.quantize_to(self.quant);
        weights.multiply_with(self.activations);
        text_graph(&self.config, weights, capacity, ONE)?;
        if let Some(vision) = self.config.vision() {
            vision_graph(self.config.hidden(), vision, weights, ONE)?;
        }
        Ok(())
    }

    /// How pictures are cut for this model; `None` if it cannot see.
    pub fn plan_config(&self) -> Option<PlanConfig> {
        plan_config(&self.config)
    }

    /// Runs the vision tower on a picture, or finds what it made of the same one before.
    ///
    /// # Errors
    /// If the model cannot see or the device fails.
    pub fn encode(&mut self, picture: Patches) -> Result<Arc<Encoded>> {
        if let Some(found) = self.cache.get(picture.hash) {
            return Ok(found);
        }
        let (plan, hash) = (picture.plan, picture.hash);
        let (Some(prepared), Some(part)) = (self.prepare_picture(picture), &self.vision) else {
            return Err(Error::Request("this model takes no pictures".into()));
        };
        let Prepared { graph, step, inputs } = prepared;
        if self.cache.is_empty() {
            self.runner.warm(&[graph], &mut |_, _| ())?;
        }
        let mut out = self.runner.run(graph, step, inputs, &[part.tensors.tokens])?;
        let Some(Data::F32(tokens)) = out.pop() else {
            return Err(Error::Gpu("the device gave no image tokens".into()));
        };
        let encoded = Arc::new(Encoded { plan, hash, tokens });
        self.cache.put(Arc::clone(&encoded));
        Ok(encoded)
    }

    /// The vision graph and its inputs for a picture; `None` if the model cannot see.
    pub(super) fn prepare_picture(&self, picture: Patches) -> Option<Prepared> {
        let (part, vision) = (self.vision.as_ref()?, self.config.vision()?);
        Some(image::prepare(part, vision, picture))
    }

    /// The graphs, for reports: prefill, decode and, on models that see, the vision tower.
    pub fn graphs(&self) -> Vec<&Arc<Graph>> {
        let ids = [Some(self.prefill.graph), Some(self.decode.graph)];
        let vision = self.vision.as_ref().map(|v| v.graph);
        ids.into_iter().chain([vision]).flatten().map(|id| self.runner.graph(id)).collect()
    }

    /// Dispatches of a decode step, on a GPU.
    pub fn dispatches(&self) -> Option<usize> {
        self.runner.gpu_graph(self.decode.graph).map(GpuGraph::dispatches)
    }

    /// The device side.
    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    /// Overwrites state of the prefill graph, which the decode graph shares.
    pub(super) fn write_state(&mut self, id: TensorId, data: Data) {
        self.runner.write_state(self.prefill.graph, id, data);
    }

    /// The most output rows a step may have.
    pub(super) fn max_outs(&self) -> usize {
        self.max_outs
    }

    /// Refuses a prompt that cannot be fed.
    pub(super) fn check(&self, prompt: &Prompt) -> Result<()> {
        let (len, context, vocab) = (prompt.len(), self.context, self.config.vocab());
        if len == 0 {
            return Err(Error::Request("the prompt is empty".into()));
        }
        if len > context {
            let most = self.config.max_context();
            let hint = match context < most {
                true => format!("a larger one can be asked for, up to the model's {most}"),
                false => "the model takes no larger one".into(),
            };
            let what = format!("the prompt has {len} tokens, the context {context}; {hint}");
            return Err(Error::Request(what));
        }
        for (at, row) in prompt.rows.iter().enumerate() {
            if let PromptRow::Token(id) = *row
                && id as usize >= vocab
            {
                return Err(Error::Request(format!(
                    "token {at} of the prompt is {id}, the model has {vocab}: its tokenizer \
                     is another model's"
                )));
            }
        }
        Ok(())
    }

    /// Runs positions `range` of `prompt`, whose earlier positions have been run, and gives what is
    /// wanted of positions `outs`.
    pub(super) fn step(
        &mut self,
        prompt: &Prompt,
        range: Range<usize>,
        outs: Range<usize>,
        sampling: &Sampling,
        want: Want,
    ) -> Result<Option<Data>> {
        let prepared = self.prepare(prompt, range, outs, sampling);
        let part = if prepared.step.rows == 1 { &self.decode } else { &self.prefill };
        let wanted = match want {
            Want::Nothing => vec![],
            Want::Tokens => vec![part.tensors.tokens],
            Want::Logits => vec![part.tensors.logits],
        };
        Ok(self.runner.run(part.graph, prepared.step, prepared.inputs, &wanted)?.pop())
    }

    /// The graph and the inputs of a step.
    pub(super) fn prepare(
        &self,
        prompt: &Prompt,
        range: Range<usize>,
        outs: Range<usize>,
        sampling: &Sampling,
    ) -> Prepared {
        let step = StepSize { rows: range.len(), outs: outs.len() };
        let part = if step.rows == 1 { &self.decode } else { &self.prefill };
        let (window, hidden) = (self.config.window(), self.config.hidden());
        let (rows, images) = prompt.upload(range.clone(), 0, window, hidden);
        let outs: Vec<Out> = outs.map(|p| Out::new(p - range.start, p as u32, sampling)).collect();
        let words = |bytes: &[u8]| Data::U32(bytemuck::pod_collect_to_vec(bytes));
        let mut inputs = vec![
            (part.tensors.rows, words(bytemuck::cast_slice(&rows))),
            (part.tensors.outs, words(bytemuck::cast_slice(&outs))),
        ];
        inputs.extend(part.tensors.images.map(|id| (id, Data::F32(images))));
        for table in &part.tensors.ropes {
            inputs.push((table.input, Data::F32(table.fill(rows.iter().map(|r| r.position)))));
        }
        Prepared { graph: part.graph, step, inputs }
    }
}

/// A step that is ready to run.
pub(super) struct Prepared {
    pub graph: GraphId,
    pub step: StepSize,
    pub inputs: Vec<(TensorId, Data)>,
}

/// How pictures are cut for a model of this configuration; `None` if it cannot see.
pub fn plan_config(config: &ModelConfig) -> Option<PlanConfig> {
    config.vision().map(|v| PlanConfig {
        patch_size: v.patch as u32,
        downsample_ratio: v.downsample as u32,
        max_n_token: v.max_tokens as u32,
        min_pixels: v.min_pixels as u32,
        max_wh_ratio: v.max_wh_ratio.map(|r| r as f64),
    })
}

fn open(options: &EngineOptions) -> Result<(Option<Gpu>, String)> {
    if options.backend == Backend::Cpu
        && let Some(adapter) = &options.adapter
    {
        let what = format!("the adapter `{adapter}` is asked for, and the CPU backend as well");
        return Err(Error::Request(what));
    }
    let none = || options.adapter.is_none() && matches!(adapters(), Ok(found) if found.is_empty());
    let cpu = match options.backend {
        Backend::Gpu => None,
        Backend::Cpu => Some("the CPU reference path, as asked for"),
        Backend::Auto if none() => Some(
            "the CPU reference path: no GPU adapter was found (on Debian and Ubuntu, \
             mesa-vulkan-drivers brings a software one)",
        ),
        Backend::Auto => None,
    };
    if let Some(why) = cpu {
        return Ok((None, why.into()));
    }
    let mut gpu = Gpu::open(options.adapter.as_deref())?;
    let tuned = match options.tuned.then(|| gpu.load_tuning()) {
        Some(Ok(true)) => ", tuned".into(),
        Some(Ok(false)) | None => String::new(),
        Some(Err(e)) => format!(", not tuned: {e}"),
    };
    let half = options.activations == Activations::F16;
    let multiplied = half && gpu.multiply_matrices(true);
    if let Some(change) = options.limits {
        change(&mut gpu.limits);
    }
    let half = match (half, multiplied && gpu.limits.serial_lanes == 0) {
        (false, _) => "",
        (true, true) => ", prompts multiplied in f16",
        (true, false) => ", nothing multiplied in f16",
    };
    let device = format!("{}: {}{tuned}{half}", gpu.report, gpu.reason);
    Ok((Some(gpu), device))
}
