//! What of a graph becomes one dispatch on software adapters, where each one wakes threads and waits
//! for them: chains of kernels, see `shaders/lib/chain.wgsl`.

use std::collections::HashMap;

use super::pipeline::PipelineKey;
use super::{Gpu, Kernel};
use crate::graph::Graph;

/// One dispatch of a graph.
#[derive(Debug)]
pub(super) struct Dispatch {
    /// The first node of which it runs a kernel.
    pub node: usize,
    /// One, or the links of a chain.
    pub kernels: Vec<Kernel>,
    pub key: PipelineKey,
    /// Workgroups, if it is a chain.
    pub threads: Option<u32>,
}

/// Kernels of a chain at most.
pub(super) const MOST_LINKS: usize = 16;

/// Code of a chain at most, as [`code`] has it. Compilers take more than twice as long for twice the code.
const MOST_CODE: usize = 16;

/// About how long a compiler takes for a kernel, where a small one is 1.
fn code(kernel: &Kernel) -> usize {
    match kernel.shader {
        "attention" | "causal_attention" => 8,
        "matmul_lanes_rows" if kernel.flags.contains(&"GATED") => 6,
        "matmul_lanes_rows" => 4,
        _ => 1,
    }
}

/// A dispatch for each kernel.
pub(super) fn apart(gpu: &Gpu, graph: &Graph) -> Vec<Dispatch> {
    let nodes = graph.nodes().iter().enumerate();
    let kernels =
        nodes.flat_map(|(i, n)| n.op.kernels(graph, &gpu.limits).into_iter().map(move |k| (i, k)));
    let dispatch = |(node, kernel): (usize, Kernel)| Dispatch {
        node,
        key: PipelineKey::of(&kernel),
        kernels: vec![kernel],
        threads: None,
    };
    kernels.map(dispatch).collect()
}

/// The dispatches of a graph. On a software adapter, of graphs for one row, those of a layer that follow
/// each other and can be links are a chain, if there are enough layers like it.
pub(super) fn dispatches(gpu: &Gpu, graph: &Graph) -> Vec<Dispatch> {
    let apart = apart(gpu, graph);
    let from = gpu.limits.chains_from;
    if from == 0 || graph.max.rows != 1 {
        return apart;
    }
    let mut joined: Vec<Vec<Dispatch>> = vec![];
    for next in apart {
        match joined.last_mut() {
            Some(chain) if may_join(gpu, graph, chain, &next) => chain.push(next),
            _ => joined.push(vec![next]),
        }
    }
    let key = |chain: &[Dispatch]| {
        let kernels: Vec<_> = chain.iter().flat_map(|d| &d.kernels).collect();
        (chain.len() > 1).then(|| PipelineKey::chain(&kernels, gpu.limits.serial_lanes, graph))
    };
    let keys: Vec<_> = joined.iter().map(|chain| key(chain)).collect();
    let mut times: HashMap<&PipelineKey, usize> = HashMap::new();
    keys.iter().flatten().for_each(|key| *times.entry(key).or_default() += 1);
    let often: Vec<_> = keys.iter().map(|k| k.as_ref().is_some_and(|k| times[k] >= from)).collect();
    let chains = joined.into_iter().zip(keys).zip(often);
    let chains = chains.flat_map(|((chain, key), often)| match key {
        Some(key) if often => vec![join(gpu, chain, key)],
        _ => chain,
    });
    chains.collect()
}

/// One dispatch of a chain, which is never empty.
fn join(gpu: &Gpu, chain: Vec<Dispatch>, key: PipelineKey) -> Dispatch {
    Dispatch {
        node: chain[0].node,
        kernels: chain.into_iter().flat_map(|d| d.kernels).collect(),
        key,
        threads: Some(gpu.limits.threads as u32),
    }
}

/// Whether `next` may be the next link of `chain`.
fn may_join(gpu: &Gpu, graph: &Graph, chain: &[Dispatch], next: &Dispatch) -> bool {
    let all = || chain.iter().chain([next]).flat_map(|d| &d.kernels);
    let layer = |d: &Dispatch| graph.nodes()[d.node].layer;
    let limits = gpu.device.limits();
    // Its own are two uniforms and a storage buffer.
    let (uniforms, storage) =
        (all().count() + 2, all().map(|k| k.bindings.len()).sum::<usize>() + 1);
    all().all(|k| k.alone)
        && chain.first().is_some_and(|first| layer(first).is_some() && layer(first) == layer(next))
        && all().count() <= MOST_LINKS
        && all().map(code).sum::<usize>() <= MOST_CODE
        && uniforms <= limits.max_uniform_buffers_per_shader_stage as usize
        && storage <= limits.max_storage_buffers_per_shader_stage as usize
}
