//! What the kernels of attention share: the shape of a workgroup's work, the parts in which long
//! lists of keys are gone through at the same time, and how these are put together. See
//! `shaders/lib/flash.wgsl` and `shaders/attention_merge.wgsl`.

use bytemuck::{Pod, Zeroable};

use super::FEW_ROWS;
use crate::gpu::tuning::LEAST_KEYS_A_PART;
use crate::gpu::{Kernel, Limits, grid};
use crate::graph::{Elem, Extent, Graph, TensorId};

/// How the lanes of a workgroup stand to its queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiles {
    /// Queries (a head of a row each) a workgroup takes.
    pub queries: usize,
    keys: usize,
    lanes: usize,
    value_lanes: usize,
    value_fours: usize,
    form: Form,
}

/// Which file of `shaders/lib` does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `flash`.
    Tiled,
    /// `flash_few`: a workgroup is one subgroup, of a software adapter.
    Few,
    /// `flash_lanes`: likewise, and its lanes have queries of their own, with keys of so many fours.
    Lanes { key_fours: usize },
    /// `flash_same`: likewise, for queries that see the same keys.
    Same,
}

/// Queries that one subgroup takes at most, and sums of values that each of its lanes has.
const FEW_QUERIES: usize = 4;
const FEW_SUMS: usize = 32;
/// Workgroups that may share the queries of a row.
const FEW_BLOCKS: usize = 4;
/// Queries of a lane of its own.
const LANE_QUERIES: usize = 4;
/// Dims up to which a lane has all of its queries and sums at hand.
const LANE_DIMS: usize = 128;
/// Queries that see the same keys, of one subgroup: enough for what is loaded of a key, and no more than
/// compile in a few seconds. And how many keys a lane scores at a time.
const SAME_QUERIES: usize = 16;
const SAME_KEYS: usize = 4;
/// Lanes of a subgroup up to which compilers take seconds, not minutes.
const SAME_LANES: usize = 8;

impl Tiles {
    /// For `queries` that may share a workgroup, and values of so many dims.
    pub fn new(queries: usize, value_dim: usize, limits: &Limits) -> Self {
        let lanes = limits.serial_lanes as usize;
        // Compilers take minutes over this kernel with wide subgroups.
        let most = if lanes > 8 { FEW_QUERIES } else { FEW_BLOCKS * FEW_QUERIES };
        if lanes > 0 && queries <= most {
            let queries = queries.min(FEW_QUERIES);
            let value_fours = value_dim.div_ceil(4 * lanes);
            if queries * value_fours <= FEW_SUMS {
                return Self {
                    queries,
                    keys: lanes,
                    lanes,
                    value_lanes: lanes,
                    value_fours,
                    form: Form::Few,
                };
            }
        }
        // Wide values fill registers: fewer queries, and more lanes to share the dims.
        let (most, lanes) = if value_dim > 128 { (16, 128) } else { (32, 64) };
        let queries = queries.next_power_of_two().clamp(4, most);
        // 16 products of queries and keys a lane, no fewer.
        let keys = (16 * lanes / queries).min(64);
        let fours = value_dim.div_ceil(4);
        let value_lanes = fours.next_power_of_two().min(4 * lanes / queries);
        let value_fours = fours.div_ceil(value_lanes);
        Self { queries, keys, lanes, value_lanes, value_fours, form: Form::Tiled }
    }

    /// The same for keys of `key_dim`. On software adapters lanes may have queries of their own, if there
    /// are enough for most of them.
    pub fn with_keys(queries: usize, key_dim: usize, value_dim: usize, limits: &Limits) -> Self {
        let lanes = limits.serial_lanes as usize;
        let short = key_dim.max(value_dim) <= LANE_DIMS;
        if lanes > 0 && short && queries > LANE_QUERIES * lanes / 2 {
            return Self {
                queries: LANE_QUERIES * lanes,
                keys: lanes,
                lanes,
                value_lanes: 1,
                value_fours: value_dim.div_ceil(4),
                form: Form::Lanes { key_fours: key_dim.div_ceil(4) },
            };
        }
        Self::new(queries, value_dim, limits)
    }

    /// What is better than these tiles, if there is such, where all queries see the same keys, as heads of a
    /// row do, and `whole` keys and values are fours.
    pub fn same_keys(
        self,
        queries: usize,
        value_dim: usize,
        whole: bool,
        limits: &Limits,
    ) -> Option<Self> {
        let lanes = limits.serial_lanes as usize;
        let able = whole && (1..=SAME_LANES).contains(&lanes) && self.form == Form::Tiled;
        able.then(|| Self {
            queries: queries.next_multiple_of(lanes).min(SAME_QUERIES),
            keys: SAME_KEYS * lanes,
            lanes,
            value_lanes: lanes,
            value_fours: value_dim.div_ceil(4 * lanes),
            form: Form::Same,
        })
    }

    /// Tells a kernel, and of a software adapter how many lanes may show each other what they load.
    pub fn tell(&self, kernel: Kernel, limits: &Limits) -> Kernel {
        let consts = [
            ("QUERIES", self.queries),
            ("KEYS", self.keys),
            ("WG", self.lanes),
            ("VALUE_FOURS", self.value_fours),
        ];
        let kernel =
            consts.into_iter().fold(kernel, |k, (name, value)| k.constant(name, value as u32));
        match self.form {
            Form::Few => return kernel.flag("FEW_QUERIES").flag("SUBGROUPS").alone(true),
            Form::Lanes { key_fours } => {
                let kernel = kernel.flag("QUERIES_A_LANE").flag("SUBGROUPS");
                return kernel.constant("KEY_FOURS", key_fours as u32);
            }
            Form::Same => return kernel.flag("SAME_KEYS").flag("SUBGROUPS").alone(true),
            Form::Tiled => {}
        }
        let kernel = kernel.constant("VALUE_LANES", self.value_lanes as u32);
        let lanes = limits.serial_lanes as usize;
        // Lanes that do other dims of the products have nothing to show each other.
        if lanes == 0 || lanes > self.queries * self.keys / 16 {
            return kernel;
        }
        // As many keys as lanes with the same part of values can load at once.
        let team = lanes.min(self.queries / 4);
        let keys = (team / self.value_fours).max(1).ilog2();
        let consts = [("LANES", lanes as u32), ("KEYS_AT_ONCE", 1 << keys)];
        let kernel = consts.into_iter().fold(kernel, |k, (name, value)| k.constant(name, value));
        kernel.flag("SERIAL").flag("SUBGROUPS")
    }
}

/// Keys below which parting them is not worth another dispatch.
const FEW_KEYS: usize = 512;
/// Parts of all rows of a step together at most: enough to keep a large GPU busy.
const MOST_PARTS: usize = 32;

/// Workgroups a thread that are an even load, whatever the remainder.
const EVEN: usize = 4;

/// Room for the results of parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    /// `[T * parts, H * dv]`: weighted sums of values. There is room for the most parts there can be.
    pub sums: TensorId,
    /// `[T * parts, 2 H]`: largest scores, then sums of weights.
    pub marks: TensorId,
    heads: usize,
    keys: usize,
    most: usize,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct MergeParams {
    heads: u32,
    dim: u32,
    splits: u32,
    rope: u32,
}

/// A rotation that is taken out of the results: of each head's last `rope` dimensions, by the angles of
/// the row in a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct TurnBack {
    /// `[T, rope]`: each row's cosines, then its sines.
    pub table: TensorId,
    pub rope: usize,
}

impl Parts {
    /// For steps of few rows (others have enough to do at the same time anyway) with up to `keys`
    /// keys; `None` if they are too few to part.
    pub fn new(g: &mut Graph, keys: usize, heads: usize, value_dim: usize) -> Option<Self> {
        let rows = g.max.rows;
        let most = (keys / LEAST_KEYS_A_PART).min(MOST_PARTS / rows.max(1));
        if rows > FEW_ROWS || keys < FEW_KEYS {
            return None;
        }
        let sums = g.scratch("parts", Elem::F32, Extent::rows(most), heads * value_dim);
        let marks = g.scratch("marks", Elem::F32, Extent::rows(most), 2 * heads);
        Some(Self { sums, marks, heads, keys, most })
    }

    /// Parts a row's keys are gone through in by so many workgroups each, of no fewer than `keys_a_part`.
    /// Software adapters have few threads, which want an even load: no more parts than make one.
    pub fn splits(&self, keys_a_part: usize, groups: usize, limits: &Limits) -> usize {
        let even = |&splits: &usize| {
            let all = groups * splits;
            all.is_multiple_of(limits.threads) || all >= EVEN * limits.threads
        };
        let most = match limits.serial_lanes {
            0 => self.most,
            _ => (1..self.most).find(even).unwrap_or(self.most),
        };
        (self.keys / keys_a_part).clamp(1, most)
    }

    /// The dispatch that puts them together in `out` `[T, H * dv]`.
    pub fn merge(
        &self,
        splits: usize,
        graph: &Graph,
        out: TensorId,
        turn_back: Option<TurnBack>,
        limits: &Limits,
    ) -> Kernel {
        let heads = self.heads;
        let params = MergeParams {
            heads: heads as u32,
            dim: (graph.tensor(out).cols / heads) as u32,
            splits: splits as u32,
            rope: turn_back.map_or(0, |t| t.rope as u32),
        };
        let mut bindings = vec![self.sums.read(), self.marks.read(), out.write()];
        bindings.extend(turn_back.map(|t| t.table.read()));
        Kernel::new("attention_merge", params, bindings, move |s| grid(s.rows * heads))
            .flag_if(turn_back.is_some(), "TURN_BACK")
            .one_subgroup(limits)
    }
}

/// Whether all these lengths are whole fours.
pub(super) fn fours(lengths: &[usize]) -> bool {
    lengths.iter().all(|n| n.is_multiple_of(4))
}
