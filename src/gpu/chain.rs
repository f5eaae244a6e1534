//! What of a graph becomes one dispatch on software adapters, where each one wakes threads and waits
//! for them: chains of kernels, see `shaders/lib/chain.wgsl`.

use std::collections::HashMap;

use super::pipeline::{KernelKey, LinkKey, PipelineKey};
use super::shader::call_bytes;
use super::store::{Homes, Place, Room};
use super::{Gpu, GpuStore, Kernel};
use crate::graph::{Graph, TensorId};

/// One dispatch of a graph.
#[derive(Debug)]
pub(super) struct Dispatch {
    /// The first node of which it runs a kernel.
    pub node: usize,
    /// One, or the calls of a chain.
    pub kernels: Vec<Kernel>,
    pub key: PipelineKey,
    /// If it is a chain.
    pub chain: Option<Chain>,
}

/// What the calls of a chain have in common, and what not.
#[derive(Debug, Default)]
pub(super) struct Chain {
    pub links: Vec<Link>,
    pub calls: Vec<Called>,
    /// Calls that its pipeline has room for, if these are more.
    room_for: usize,
}

/// A kernel that a chain may call several times.
#[derive(Debug)]
pub(super) struct Link {
    pub key: KernelKey,
    /// All parameters that calls have.
    pub params: Vec<Vec<u8>>,
    pub bound: Vec<Bound>,
}

/// One call of a link.
#[derive(Debug)]
pub(super) struct Called {
    pub link: usize,
    /// Which of the link's parameters it has.
    pub params: usize,
    bound: Vec<Bound>,
}

/// What a binding is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// A part of a tensor with a buffer of its own.
    Tensor(TensorId, usize),
    /// A place.
    Place(Place),
    /// All of a buffer, of which each call has another place.
    Room(Room),
}

/// Links and calls of a chain at most.
const MOST_LINKS: usize = 16;
const MOST_CALLS: usize = 512;

/// Code of a chain at most, as [`KernelKey::code`] has it. Compilers take more than twice as long for twice
/// the code.
const MOST_CODE: usize = 16;
/// The same of a chain of all layers.
const MOST_CODE_OF_ALL: usize = 32;
/// Lanes up to which there are such: with wider subgroups compilers take minutes over one.
const MOST_LANES_OF_ALL: u32 = 8;

impl Bound {
    /// What calls may share of which one has `self` and the other `other`.
    fn with(self, other: Self) -> Option<Self> {
        match (self, other) {
            (a, b) if a == b => Some(a),
            (Self::Place(Place { room, .. }) | Self::Room(room), Self::Place(b))
                if b.room == room =>
            {
                Some(Self::Room(room))
            }
            _ => None,
        }
    }
}

impl Link {
    /// For each binding, whether calls have places of their own in it.
    fn placed(&self) -> impl Iterator<Item = bool> {
        self.bound.iter().map(|b| matches!(b, Bound::Room(_)))
    }
}

impl Chain {
    /// Of all these kernels, in this order.
    fn new<'a>(
        kernels: impl IntoIterator<Item = &'a Kernel>,
        graph: &Graph,
        homes: &Homes,
    ) -> Self {
        let mut chain = Self::default();
        kernels.into_iter().for_each(|kernel| chain.call(kernel, graph, homes));
        chain
    }

    fn call(&mut self, kernel: &Kernel, graph: &Graph, homes: &Homes) {
        let key = KernelKey::in_chain(kernel, graph);
        let bound = kernel.bindings.iter().map(|b| {
            let place = homes.of(b.used.tensor).get(b.part);
            place.map_or(Bound::Tensor(b.used.tensor, b.part), |&place| Bound::Place(place))
        });
        let bound: Vec<_> = bound.collect();
        // A link already here, and what its bindings become.
        let shared = self.links.iter().enumerate().filter(|(_, link)| link.key == key).find_map(
            |(i, link)| {
                let each = link.bound.iter().zip(&bound).map(|(a, &b)| a.with(b));
                Some((i, each.collect::<Option<Vec<_>>>()?))
            },
        );
        let link = match shared {
            Some((link, bound)) => {
                self.links[link].bound = bound;
                link
            }
            None => {
                self.links.push(Link { key, params: vec![], bound: bound.clone() });
                self.links.len() - 1
            }
        };
        let all = &mut self.links[link].params;
        let params = all.iter().position(|p| *p == kernel.params).unwrap_or_else(|| {
            all.push(kernel.params.clone());
            all.len() - 1
        });
        self.calls.push(Called { link, params, bound });
    }

    /// Whether a device can run it, and compile it soon enough.
    fn is_fit(&self, gpu: &Gpu, most_code: usize) -> bool {
        let limits = gpu.device.limits();
        // Its own are two uniforms and a storage buffer.
        let uniforms = self.links.len() + 2;
        let storage = self.links.iter().map(|l| l.bound.len()).sum::<usize>() + 1;
        let table = self.call_bytes() * self.room_for();
        let params = |l: &Link| l.params.iter().map(|p| p.len().next_multiple_of(16)).sum();
        let uniform_bytes = self.links.iter().map(params).max().unwrap_or(0).max(table);
        self.links.len() <= MOST_LINKS
            && self.room_for() <= MOST_CALLS
            && self.links.iter().map(|l| l.key.code()).sum::<usize>() <= most_code
            && uniforms <= limits.max_uniform_buffers_per_shader_stage as usize
            && uniform_bytes as u64 <= limits.max_uniform_buffer_binding_size
            && storage <= limits.max_storage_buffers_per_shader_stage as usize
    }

    /// Calls that its pipeline has room for.
    pub fn room_for(&self) -> usize {
        self.room_for.max(self.calls.len())
    }

    /// Whether calls of a kernel are of two links, since what these bind is in several buffers.
    fn is_parted(&self) -> bool {
        let before = |(i, link): (usize, &Link)| self.links[..i].iter().any(|l| l.key == link.key);
        self.links.iter().enumerate().any(before)
    }

    /// Bytes of what tells it about each of its calls.
    pub fn call_bytes(&self) -> usize {
        let placed = |link: &Link| link.placed().filter(|&placed| placed).count();
        call_bytes(self.links.iter().map(placed).max().unwrap_or(0))
    }

    fn key(&self, gpu: &Gpu) -> PipelineKey {
        let links = self.links.iter().map(|link| LinkKey {
            kernel: link.key.clone(),
            placed: link.placed().collect(),
            params: link.params.len(),
        });
        PipelineKey::chain(links.collect(), gpu.limits.serial_lanes, self.room_for())
    }

    /// Where in the link's buffers the call's places begin, in bytes.
    pub fn places(&self, call: &Called) -> Vec<u64> {
        let each = self.links[call.link].bound.iter().zip(&call.bound);
        let each = each.filter_map(|(link, call)| match (link, call) {
            (Bound::Room(_), Bound::Place(place)) => Some(place.offset),
            _ => None,
        });
        each.collect()
    }
}

/// A dispatch for each kernel, of a graph that has scratch in one buffer or not.
pub(super) fn apart(gpu: &Gpu, graph: &Graph, one_scratch: bool) -> Vec<Dispatch> {
    let nodes = graph.nodes().iter().enumerate();
    let kernels =
        nodes.flat_map(|(i, n)| n.op.kernels(graph, &gpu.limits).into_iter().map(move |k| (i, k)));
    let dispatch = |(node, kernel): (usize, Kernel)| Dispatch {
        node,
        key: PipelineKey::of(&kernel, graph, &gpu.limits, one_scratch),
        kernels: vec![kernel],
        chain: None,
    };
    kernels.map(dispatch).collect()
}

/// The dispatches of a graph whose weights and states are in `store`, and where its tensors are. On a
/// software adapter, of graphs for one row, all layers are a chain, or one for each run of layers whose
/// weights and states are in the same buffers, if there is little enough code in them; else kernels of a
/// layer that follow each other are, if there are enough layers like it.
pub(super) fn dispatches(gpu: &Gpu, graph: &Graph, store: &GpuStore) -> (Vec<Dispatch>, Homes) {
    let chains = gpu.limits.chains_from > 0 && graph.max.rows == 1;
    if chains && gpu.limits.serial_lanes <= MOST_LANES_OF_ALL {
        let homes = Homes::new(graph, store, true);
        if let Some(dispatches) = chains_of_all(gpu, graph, &homes) {
            return (dispatches, homes);
        }
    }
    let homes = Homes::new(graph, store, false);
    let apart = apart(gpu, graph, false);
    let dispatches = if chains { chains_of_layers(gpu, graph, &homes, apart) } else { apart };
    (dispatches, homes)
}

/// With all layers in one chain, or in few that share a pipeline.
fn chains_of_all(gpu: &Gpu, graph: &Graph, homes: &Homes) -> Option<Vec<Dispatch>> {
    let mut apart = apart(gpu, graph, true);
    let layer = |d: &Dispatch| graph.nodes()[d.node].layer;
    let first = apart.iter().position(|d| layer(d).is_some())?;
    let last = apart.iter().rposition(|d| layer(d).is_some())?;
    let layers = &apart[first..=last];
    let able = layers.iter().all(|d| layer(d).is_some() && is_alone(d))
        && homes.scratch.iter().all(|place| place.end() <= gpu.limits.shared_bytes);
    if !able {
        return None;
    }
    // Of each run how many dispatches it joins, and its chain.
    let mut runs: Vec<(usize, Chain)> = vec![];
    let mut begin = 0;
    let mut end = 0;
    for next in layers.chunk_by(|a, b| layer(a) == layer(b)) {
        let longer = Chain::new(kernels(&layers[begin..end + next.len()]), graph, homes);
        match runs.last_mut() {
            Some(run) if !longer.is_parted() => *run = (end + next.len() - begin, longer),
            _ => {
                begin = end;
                runs.push((next.len(), Chain::new(kernels(next), graph, homes)));
            }
        }
        end += next.len();
    }
    make_alike(runs.iter_mut().map(|run| &mut run.1).collect())?;
    let (_, chain) = runs.first()?;
    let calls: usize = runs.iter().map(|(_, chain)| chain.calls.len()).sum();
    let often = calls >= gpu.limits.chains_from * chain.links.len();
    if !often || !chain.is_fit(gpu, MOST_CODE_OF_ALL) {
        return None;
    }
    let after = apart.split_off(last + 1);
    let mut layers = apart.split_off(first).into_iter();
    for (count, chain) in runs {
        let key = chain.key(gpu);
        apart.push(join(layers.by_ref().take(count).collect(), chain, key));
    }
    apart.extend(after);
    Some(apart)
}

/// Makes chains of the same links such that they share a pipeline; nothing if there are others.
fn make_alike(mut chains: Vec<&mut Chain>) -> Option<()> {
    let keys = |chain: &Chain| chain.links.iter().map(|l| l.key.clone()).collect::<Vec<_>>();
    let links = keys(chains.first()?);
    if chains.iter().any(|chain| keys(chain) != links) {
        return None;
    }
    let calls = chains.iter().map(|chain| chain.calls.len()).max()?;
    for chain in &mut chains {
        chain.room_for = calls;
    }
    for i in 0..links.len() {
        let params = chains.iter().map(|chain| chain.links[i].params.len()).max()?;
        let placed = chains.iter().map(|chain| chain.links[i].placed().collect::<Vec<_>>());
        let placed = placed.reduce(|a, b| a.iter().zip(b).map(|(&a, b)| a || b).collect())?;
        for chain in &mut chains {
            let link = &mut chain.links[i];
            let last = link.params.last()?.clone();
            link.params.resize(params, last);
            for (bound, _) in link.bound.iter_mut().zip(&placed).filter(|(_, placed)| **placed) {
                if let Bound::Place(place) = *bound {
                    *bound = Bound::Room(place.room);
                }
            }
        }
    }
    Some(())
}

fn chains_of_layers(
    gpu: &Gpu,
    graph: &Graph,
    homes: &Homes,
    apart: Vec<Dispatch>,
) -> Vec<Dispatch> {
    let layer = |d: &Dispatch| graph.nodes()[d.node].layer;
    let may_join = |joined: &[Dispatch], next: &Dispatch| {
        let all = || joined.iter().chain([next]);
        all().all(is_alone)
            && joined.iter().all(|d| layer(d).is_some() && layer(d) == layer(next))
            && Chain::new(kernels(all()), graph, homes).is_fit(gpu, MOST_CODE)
    };
    let mut joined: Vec<Vec<Dispatch>> = vec![];
    for next in apart {
        match joined.last_mut() {
            Some(last) if may_join(last, &next) => last.push(next),
            _ => joined.push(vec![next]),
        }
    }
    let joined: Vec<_> = joined
        .into_iter()
        .map(|dispatches| {
            let chain = (dispatches.len() > 1).then(|| {
                let chain = Chain::new(kernels(&dispatches), graph, homes);
                let key = chain.key(gpu);
                (chain, key)
            });
            (dispatches, chain)
        })
        .collect();
    let mut times: HashMap<PipelineKey, usize> = HashMap::new();
    let keys = joined.iter().flat_map(|(_, chain)| chain).map(|(_, key)| key);
    keys.for_each(|key| *times.entry(key.clone()).or_default() += 1);
    let chains = joined.into_iter().flat_map(|(dispatches, chain)| match chain {
        Some((chain, key)) if times[&key] >= gpu.limits.chains_from => {
            vec![join(dispatches, chain, key)]
        }
        _ => dispatches,
    });
    chains.collect()
}

fn kernels<'a>(
    dispatches: impl IntoIterator<Item = &'a Dispatch>,
) -> impl Iterator<Item = &'a Kernel> {
    dispatches.into_iter().flat_map(|d| &d.kernels)
}

fn is_alone(dispatch: &Dispatch) -> bool {
    dispatch.kernels.iter().all(|k| k.alone)
}

/// One dispatch of several, which are never none.
fn join(dispatches: Vec<Dispatch>, chain: Chain, key: PipelineKey) -> Dispatch {
    Dispatch {
        node: dispatches[0].node,
        kernels: dispatches.into_iter().flat_map(|d| d.kernels).collect(),
        key,
        chain: Some(chain),
    }
}
