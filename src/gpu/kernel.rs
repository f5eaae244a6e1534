//! What an op asks of the GPU: shader, specialisation, bindings, parameters and grid. Plain data:
//! nothing here touches wgpu.

use std::fmt;
use std::ops::Range;

use bytemuck::Pod;

use super::{Matrices, Tuning};
use crate::graph::{Graph, StepSize, TensorId, Use};

/// What kernels may count on, and what was chosen for them. The smallest device WebGPU allows is [`Limits::CORE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes one storage binding may span.
    pub max_binding_bytes: u64,
    /// Whether subgroup operations may be used. Their width may be anything from 4 to 128, and may
    /// differ between dispatches.
    pub subgroups: bool,
    /// How many lanes each subgroup has on an adapter that is software, which loads for one lane after
    /// the other and has no use for many invocations; 0 on hardware, and where subgroups differ.
    pub serial_lanes: u32,
    /// How many threads share the workgroups of a dispatch on such an adapter.
    pub threads: usize,
    /// How often a graph must have the same chain of kernels for a software adapter to run it as one
    /// dispatch, since it takes longer to compile than its kernels. 0 is never.
    pub chains_from: usize,
    /// Bytes at most of a buffer that several tensors share for the sake of chains, whose calls go from one
    /// to the next in one binding.
    pub shared_bytes: u64,
    /// Whether there are integers of 64 bits, on an adapter that loads these as fast as 32.
    pub wide_loads: bool,
    /// What products of many rows multiply on hardware, if not numbers one by one.
    pub matrices: Option<Matrices>,
    /// Which of kernels that give the same result is taken.
    pub tuning: Tuning,
}

impl Limits {
    /// WebGPU's core limits.
    pub const CORE: Self = Self {
        max_binding_bytes: 128 << 20,
        subgroups: false,
        serial_lanes: 0,
        threads: 1,
        chains_from: 0,
        shared_bytes: 0,
        wide_loads: false,
        matrices: None,
        tuning: Tuning::DEFAULT,
    };

    /// Those of a software adapter as if it were hardware: without the kernels that such have alone.
    #[must_use]
    pub fn of_hardware(self) -> Self {
        Self { serial_lanes: 0, chains_from: 0, wide_loads: false, ..self }
    }

    /// Of a kernel whose invocations do not depend on each other: how many a workgroup has, where others
    /// have `wg`, and whether it is [`Kernel::alone`]. In graphs for one row on a software adapter a
    /// workgroup is one subgroup; with many rows there would be too many workgroups.
    pub fn invocations(&self, graph: &Graph, wg: usize) -> (usize, bool) {
        let alone = self.serial_lanes > 0 && graph.max.rows == 1;
        (if alone { self.serial_lanes as usize } else { wg }, alone)
    }

    /// The row ranges into which a weight must be parted so that each fits one binding: a single
    /// range where it fits whole. Parts end at multiples of the tensor's granule.
    pub fn parts(&self, graph: &Graph, weight: TensorId) -> Vec<Range<usize>> {
        let t = graph.tensor(weight);
        let granule_bytes = t.bytes(t.granule).max(1) as u64;
        let per_part = (self.max_binding_bytes / granule_bytes).max(1) as usize * t.granule;
        let rows = t.rows.fixed;
        (0..rows).step_by(per_part).map(|a| a..(a + per_part).min(rows)).collect()
    }
}

/// One storage buffer of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// The tensor and how the kernel uses it. Anything but a read is bound `read_write`.
    pub used: Use,
    /// Which part of a weight that is larger than one binding.
    pub part: usize,
}

impl From<Use> for Binding {
    fn from(used: Use) -> Self {
        Self { used, part: 0 }
    }
}

/// What tells a kernel how many rows of workgroups it has, where this is known on the device alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// What is counted: a tensor that a kernel before it has written, which [tells](Kernel::tells) of it.
    pub by: TensorId,
    /// Which of the counts, as that kernel understands it.
    pub which: u32,
}

/// The number of workgroups as a function of the step's size.
pub type Grid = Box<dyn Fn(StepSize) -> [u32; 3] + Send + Sync>;

/// One dispatch.
pub struct Kernel {
    /// Name of a file in `shaders/`, without `.wgsl`.
    pub shader: &'static str,
    /// Flags its `//#if` lines ask for.
    pub flags: Vec<&'static str>,
    /// Values for its `override` constants; those not named keep their defaults.
    pub consts: Vec<(&'static str, u32)>,
    /// Its `Params` uniform, binding 0 (binding 1 is the step, see `shaders/lib/step.wgsl`).
    pub params: Vec<u8>,
    /// Its storage buffers, from binding 2 on.
    pub bindings: Vec<Binding>,
    /// Workgroups; a grid with a zero dimension dispatches nothing.
    pub grid: Grid,
    /// Whether workgroups are one subgroup of a software adapter and have no barriers. Several such
    /// kernels may share a dispatch.
    pub alone: bool,
    /// If the second dimension of its grid is what the device has counted, of which `grid` says nothing; the
    /// others are the same in all steps.
    pub told: Option<Told>,
    /// A tensor whose counts it tells to other kernels: after all others it has a binding for the
    /// four words of each of them: the grid, whose second dimension it writes, and [`Told::which`].
    pub tells: Option<TensorId>,
}

impl Kernel {
    /// A dispatch of `shader` with the given `Params` block, and no flags or constants.
    pub fn new(
        shader: &'static str,
        params: impl Pod,
        bindings: impl IntoIterator<Item = Use>,
        grid: impl Fn(StepSize) -> [u32; 3] + Send + Sync + 'static,
    ) -> Self {
        Self {
            shader,
            flags: vec![],
            consts: vec![],
            params: bytemuck::bytes_of(&params).to_vec(),
            bindings: bindings.into_iter().map(Binding::from).collect(),
            grid: Box::new(grid),
            alone: false,
            told: None,
            tells: None,
        }
    }

    /// Says that it tells others what it has counted in this tensor.
    #[must_use]
    pub fn tells(mut self, of: TensorId) -> Self {
        self.tells = Some(of);
        self
    }

    /// Says that another tells it how many rows of workgroups it has.
    #[must_use]
    pub fn told(mut self, by: TensorId, which: u32) -> Self {
        self.told = Some(Told { by, which });
        self
    }

    /// Says whether its workgroups are one subgroup of a software adapter and have no barriers.
    #[must_use]
    pub fn alone(mut self, alone: bool) -> Self {
        self.alone = alone;
        self
    }

    /// Adds a flag.
    #[must_use]
    pub fn flag(mut self, flag: &'static str) -> Self {
        self.flags.push(flag);
        self
    }

    /// Adds a flag if `on`.
    #[must_use]
    pub fn flag_if(self, on: bool, flag: &'static str) -> Self {
        if on { self.flag(flag) } else { self }
    }

    /// On a software adapter a workgroup is one subgroup. If it has barriers, it is not [`Kernel::alone`].
    #[must_use]
    pub fn one_subgroup(self, limits: &Limits) -> Self {
        match limits.serial_lanes {
            0 => self,
            lanes => self.constant("WG", lanes).alone(true),
        }
    }

    /// Of a kernel that includes `lib/reduce.wgsl`: how it sums over a workgroup of `wg` invocations
    /// on such a device. On a software adapter a workgroup is one subgroup instead, since a barrier
    /// there costs more than a row's work. If it has barriers of its own, it is not [`Kernel::alone`].
    #[must_use]
    pub fn reduces(self, limits: &Limits, wg: u32) -> Self {
        let kernel = self.flag_if(limits.subgroups, "SUBGROUPS");
        match limits.serial_lanes {
            0 => kernel.constant("WG", wg),
            lanes => kernel.flag("ONE_SUBGROUP").constant("WG", lanes).alone(true),
        }
    }

    /// Sets an `override` constant.
    #[must_use]
    pub fn constant(mut self, name: &'static str, value: u32) -> Self {
        self.consts.push((name, value));
        self
    }

    /// Sets several of them.
    #[must_use]
    pub fn constants(mut self, of: impl IntoIterator<Item = (&'static str, usize)>) -> Self {
        self.consts.extend(of.into_iter().map(|(name, value)| (name, value as u32)));
        self
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel")
            .field("shader", &self.shader)
            .field("flags", &self.flags)
            .field("consts", &self.consts)
            .field("bindings", &self.bindings)
            .finish_non_exhaustive()
    }
}

/// Workgroups a dimension: the limit of WebGPU's core.
const MAX_GROUPS: u32 = 65_535;

/// A one-dimensional grid of `n` workgroups, folded into two dimensions above 65,535. Kernels find
/// their index with `group_index` of `shaders/lib/step.wgsl` and must ignore those from `n` on.
pub fn grid(n: usize) -> [u32; 3] {
    let n = u32::try_from(n).unwrap_or(u32::MAX);
    if n <= MAX_GROUPS { [n, 1, 1] } else { [MAX_GROUPS, n.div_ceil(MAX_GROUPS), 1] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Elem;

    #[test]
    fn grids_cover_and_fit() {
        for n in [0, 1, 65_535, 65_536, 1 << 20] {
            let [x, y, z] = grid(n);
            assert!(x as usize * y as usize >= n && x <= 65_535 && y <= 65_535 && z == 1);
        }
    }

    #[test]
    fn parts_cover_a_weight_in_whole_granules() {
        let mut g = Graph::new("parts", StepSize { rows: 1, outs: 1 });
        let w = g.bank("w", Elem::BF16, 60, 16, 5);
        let limits = Limits { max_binding_bytes: 32 * 23, ..Limits::CORE };
        assert_eq!(limits.parts(&g, w), vec![0..20, 20..40, 40..60]);
        assert_eq!(Limits::CORE.parts(&g, w), vec![0..60]);
    }
}
