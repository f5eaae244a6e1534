//! Choices between shapes of a kernel that give the same result, of which one device is faster with
//! this and another with that. `fathom tune` measures them. Plain data: nothing here touches wgpu.
//!
//! A [`Choice`] is a kernel and a class of shapes. Each has a short list of candidates, of which the
//! first is the default, and a [`Tuning`] says which one of each list is taken.

use std::fmt;

use crate::graph::Elem;

/// What a product multiplies: how weights are read has its share in what is fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// Weights in F32, F16 or BF16.
    Floats,
    /// Weights in blocks that have scales.
    Blocks,
    /// The same with activations in 8 bits.
    EightBits,
}

/// How many results a row of a product has: so many, or so few, workgroups keep a device busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// Fewer than 2,048.
    Narrow,
    /// From 2,048 on.
    Middle,
    /// From 16,384 on.
    Wide,
}

/// How much a product of many rows has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Few rows, or few outputs, or a short inner length.
    Small,
    /// More, with fewer than 2,048 outputs.
    Narrow,
    /// More, with 2,048 outputs or more.
    Wide,
}

impl Numbers {
    /// What a product multiplies with weights of this type, and activations in 8 bits or not.
    pub fn of(weights: Elem, eight_bits: bool) -> Self {
        match weights {
            _ if eight_bits => Self::EightBits,
            Elem::Block(_) => Self::Blocks,
            _ => Self::Floats,
        }
    }
}

impl Outputs {
    /// The class of so many results a row.
    pub fn of(outputs: usize) -> Self {
        match outputs {
            ..2048 => Self::Narrow,
            2048..16_384 => Self::Middle,
            _ => Self::Wide,
        }
    }
}

impl Work {
    /// Rows up to which a step is small.
    pub const FEW_ROWS: usize = 32;
    /// Outputs and inner length below which all steps are: they are soon done.
    pub const LONG_SIDE: usize = 256;

    /// The class of steps of so many rows.
    pub fn of(rows: usize, outputs: usize, inner: usize) -> Self {
        if rows <= Self::FEW_ROWS || outputs.min(inner) < Self::LONG_SIDE {
            return Self::Small;
        }
        if Outputs::of(outputs) == Outputs::Narrow { Self::Narrow } else { Self::Wide }
    }
}

/// A workgroup of `matmul_rows`: 64 invocations in teams, each of which walks along weight rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Team {
    /// Invocations that share a weight row.
    pub lanes: usize,
    /// Weight rows they walk along at the same time.
    pub outs: usize,
}

impl Team {
    /// Invocations of a workgroup: the shader's `WG`.
    const WORKGROUP: usize = 64;

    /// Outputs a workgroup makes.
    pub fn outputs(self) -> usize {
        Self::WORKGROUP / self.lanes * self.outs
    }
}

/// A workgroup of `matmul_tiles`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Rows and outputs it makes.
    pub block: [usize; 2],
    /// Rows and outputs that an invocation makes.
    pub each: [usize; 2],
}

/// What workgroups of `matmul_tiles` make of the tiles of experts, which have as many rows as their size says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertTile {
    /// Outputs of a workgroup.
    pub outputs: usize,
    /// Rows and outputs that an invocation makes of a large tile; of two weights at once half as many outputs.
    pub large: [usize; 2],
    /// Rows and outputs that an invocation makes of a small tile.
    pub small: [usize; 2],
}

/// What a workgroup of `matmul_matrices` makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixBlock {
    /// Rows.
    pub rows: usize,
    /// Outputs.
    pub outputs: usize,
}

/// What an invocation of `matmul_lanes` has in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneBlock {
    /// Outputs it makes; of `matmul_lanes_pairs`, pairs of these.
    pub outs: usize,
    /// Rows whose x its subgroup has at a time at most: 4, or 8.
    pub rows: usize,
}

impl fmt::Display for Team {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "teams of {} for {} outputs", self.lanes, self.outs)
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([rows, outputs], [each_rows, each_outputs]) = (self.block, self.each);
        write!(f, "tiles of {rows} x {outputs}, {each_rows} x {each_outputs} each")
    }
}

impl fmt::Display for ExpertTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { outputs, large: [rows, each], small: [small_rows, small_each] } = self;
        write!(
            f,
            "{outputs} outputs, {rows} x {each} each, or {small_rows} x {small_each} of few rows"
        )
    }
}

impl fmt::Display for MatrixBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tiles of {} x {}", self.rows, self.outputs)
    }
}

impl fmt::Display for LaneBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blocks of {} outputs, {} rows", self.outs, self.rows)
    }
}

/// Workgroup memory holds 4 weight rows of 4 rows of x at most, twice over where they are gated.
const TEAMS: [Team; 6] = {
    const fn team(lanes: usize, outs: usize) -> Team {
        Team { lanes, outs }
    }
    [team(8, 4), team(8, 2), team(8, 1), team(16, 2), team(16, 1), team(32, 1)]
};

const fn tile(block: [usize; 2], each: [usize; 2]) -> Tile {
    Tile { block, each }
}

const SMALL_TILES: [Tile; 4] = [
    tile([32, 32], [4, 4]),
    tile([32, 32], [2, 4]),
    tile([16, 64], [4, 4]),
    tile([32, 64], [4, 4]),
];

/// 8 x 8 an invocation multiplies twice as much as 4 x 4 for each number it reads from workgroup memory.
const LARGE_TILES: [Tile; 5] = [
    tile([64, 64], [8, 8]),
    tile([64, 64], [8, 4]),
    tile([64, 64], [4, 4]),
    tile([128, 64], [8, 8]),
    tile([32, 32], [4, 4]),
];

/// Workgroup memory holds 64 outputs of two weights at once, not 128.
const EXPERT_TILES: [ExpertTile; 3] = [
    ExpertTile { outputs: 64, large: [4, 8], small: [4, 4] },
    ExpertTile { outputs: 64, large: [4, 4], small: [2, 4] },
    ExpertTile { outputs: 32, large: [4, 4], small: [2, 4] },
];

/// Outputs of a workgroup of `matmul_matrices` that has a tile of an expert.
const EXPERT_MATRIX_OUTPUTS: [usize; 3] = [64, 128, 32];

const fn matrix_block(rows: usize, outputs: usize) -> MatrixBlock {
    MatrixBlock { rows, outputs }
}

const SMALL_MATRIX_BLOCKS: [MatrixBlock; 4] =
    [matrix_block(32, 64), matrix_block(32, 32), matrix_block(32, 128), matrix_block(64, 64)];

/// The largest has a quarter of it in the registers of each subgroup.
const LARGE_MATRIX_BLOCKS: [MatrixBlock; 5] = [
    matrix_block(64, 64),
    matrix_block(128, 64),
    matrix_block(64, 128),
    matrix_block(128, 128),
    matrix_block(32, 64),
];

const LANE_BLOCKS: [LaneBlock; 4] = {
    const fn block(outs: usize, rows: usize) -> LaneBlock {
        LaneBlock { outs, rows }
    }
    [block(2, 8), block(2, 4), block(1, 8), block(4, 4)]
};

/// Outputs that an invocation of `matmul_lanes_rows` makes at most.
const LANE_OUTS: [usize; 4] = [16, 32, 8, 4];

/// Parts of the inner length of `matmul_transposed` that are gone through at the same time.
const SPLITS: [usize; 4] = [4, 2, 8, 16];

/// Keys of `attention` that are worth a workgroup of their own: few, since they are wide and few heads
/// wide ones are done at a time.
const ATTENTION_KEYS: [usize; 3] = [64, 128, 256];

/// The same of `causal_attention`.
const CAUSAL_KEYS: [usize; 4] = [256, 64, 128, 512];

/// The fewest keys that any candidate makes a part.
pub const LEAST_KEYS_A_PART: usize = 64;

/// A kernel and a class of shapes, for which one of some candidates is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The [`Team`] of products of few rows.
    MatmulRows(Numbers, Outputs),
    /// The [`Tile`] of products of many rows.
    MatmulTiles(Numbers, Work),
    /// The [`MatrixBlock`] of products of many rows where subgroups multiply matrices.
    MatmulMatrices {
        /// Whether in f16.
        half: bool,
        /// How much there is to do.
        work: Work,
    },
    /// The [`ExpertTile`] of products of many rows with what each has chosen.
    ExpertTiles(Numbers),
    /// The outputs of a workgroup in the same where subgroups multiply matrices.
    ExpertMatrices {
        /// Whether in f16.
        half: bool,
    },
    /// The [`LaneBlock`] of products of many rows on software adapters.
    MatmulLanes(Numbers),
    /// The outputs of an invocation in products of few rows on software adapters.
    MatmulLanesRows(Numbers),
    /// Parts of the inner length in products whose inner index runs over the rows of the weight.
    MatmulTransposed,
    /// Keys a part of attention with one latent vector a position.
    Attention,
    /// Keys a part of attention over all positions.
    CausalAttention,
}

const NUMBERS: [Numbers; 3] = [Numbers::Floats, Numbers::Blocks, Numbers::EightBits];
const OUTPUTS: [Outputs; 3] = [Outputs::Narrow, Outputs::Middle, Outputs::Wide];
const WORKS: [Work; 3] = [Work::Small, Work::Narrow, Work::Wide];

impl Choice {
    const COUNT: usize = 38;

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let rows = NUMBERS.into_iter().flat_map(|n| OUTPUTS.map(|o| Self::MatmulRows(n, o)));
        let tiles = NUMBERS.into_iter().flat_map(|n| WORKS.map(|w| Self::MatmulTiles(n, w)));
        let matrices = [false, true]
            .into_iter()
            .flat_map(|half| WORKS.map(|work| Self::MatmulMatrices { half, work }));
        rows.chain(tiles)
            .chain(matrices)
            .chain(NUMBERS.map(Self::ExpertTiles))
            .chain([false, true].map(|half| Self::ExpertMatrices { half }))
            .chain(NUMBERS.map(Self::MatmulLanes))
            .chain(NUMBERS.map(Self::MatmulLanesRows))
            .chain([Self::MatmulTransposed, Self::Attention, Self::CausalAttention])
    }

    /// Its place among all.
    fn place(self) -> usize {
        match self {
            Self::MatmulRows(n, o) => 3 * n as usize + o as usize,
            Self::MatmulTiles(n, w) => 9 + 3 * n as usize + w as usize,
            Self::MatmulMatrices { half, work } => 18 + 3 * half as usize + work as usize,
            Self::ExpertTiles(n) => 24 + n as usize,
            Self::ExpertMatrices { half } => 27 + half as usize,
            Self::MatmulLanes(n) => 29 + n as usize,
            Self::MatmulLanesRows(n) => 32 + n as usize,
            Self::MatmulTransposed => 35,
            Self::Attention => 36,
            Self::CausalAttention => 37,
        }
    }

    /// The kernel; that of activations in 8 bits has a name of its own in `shaders`.
    pub fn kernel(self) -> &'static str {
        match self {
            Self::MatmulRows(..) => "matmul_rows",
            Self::MatmulTiles(..) | Self::ExpertTiles(_) => "matmul_tiles",
            Self::MatmulMatrices { .. } | Self::ExpertMatrices { .. } => "matmul_matrices",
            Self::MatmulLanes(_) => "matmul_lanes",
            Self::MatmulLanesRows(_) => "matmul_lanes_rows",
            Self::MatmulTransposed => "matmul_transposed",
            Self::Attention => "attention",
            Self::CausalAttention => "causal_attention",
        }
    }

    /// The class of shapes, in words.
    pub fn class(self) -> String {
        let numbers = |n| match n {
            Numbers::Floats => "floats",
            Numbers::Blocks => "blocks",
            Numbers::EightBits => "8 bits",
        };
        let work = |w| match w {
            Work::Small => "few rows or small",
            Work::Narrow => "below 2048 outputs",
            Work::Wide => "2048 outputs or more",
        };
        match self {
            Self::MatmulRows(n, outputs) => {
                let outputs = match outputs {
                    Outputs::Narrow => "below 2048 outputs",
                    Outputs::Middle => "2048 outputs or more",
                    Outputs::Wide => "16384 outputs or more",
                };
                format!("{}, {outputs}", numbers(n))
            }
            Self::MatmulTiles(n, w) => format!("{}, {}", numbers(n), work(w)),
            Self::MatmulMatrices { half: false, work: w } => format!("f32, {}", work(w)),
            Self::MatmulMatrices { half: true, work: w } => format!("f16, {}", work(w)),
            Self::ExpertTiles(n) => format!("experts, {}", numbers(n)),
            Self::ExpertMatrices { half } => {
                format!("experts, {}", if half { "f16" } else { "f32" })
            }
            Self::MatmulLanes(n) | Self::MatmulLanesRows(n) => numbers(n).into(),
            Self::MatmulTransposed | Self::Attention | Self::CausalAttention => "one row".into(),
        }
    }

    /// What it is taken from, in words. The first is the default.
    pub fn candidates(self) -> Vec<String> {
        fn words<T: fmt::Display>(before: &str, of: &[T], after: &str) -> Vec<String> {
            of.iter().map(|c| format!("{before}{c}{after}")).collect()
        }
        match self {
            Self::MatmulRows(..) => words("", &TEAMS, ""),
            Self::MatmulTiles(_, Work::Small) => words("", &SMALL_TILES, ""),
            Self::MatmulTiles(..) => words("", &LARGE_TILES, ""),
            Self::MatmulMatrices { work: Work::Small, .. } => words("", &SMALL_MATRIX_BLOCKS, ""),
            Self::MatmulMatrices { .. } => words("", &LARGE_MATRIX_BLOCKS, ""),
            Self::ExpertTiles(_) => words("", &EXPERT_TILES, ""),
            Self::ExpertMatrices { .. } => words("", &EXPERT_MATRIX_OUTPUTS, " outputs"),
            Self::MatmulLanes(_) => words("", &LANE_BLOCKS, ""),
            Self::MatmulLanesRows(_) => words("up to ", &LANE_OUTS, " outputs"),
            Self::MatmulTransposed => words("in ", &SPLITS, " parts"),
            Self::Attention => words("parts of ", &ATTENTION_KEYS, " keys"),
            Self::CausalAttention => words("parts of ", &CAUSAL_KEYS, " keys"),
        }
    }
}

/// Which candidate of each [`Choice`] is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tuning([u8; Choice::COUNT]);

impl Tuning {
    /// The first of all.
    pub const DEFAULT: Self = Self([0; Choice::COUNT]);

    /// Tunings that have all candidates of all choices between them; the first is the default.
    pub fn all() -> impl Iterator<Item = Self> {
        let most = Choice::all().map(|c| c.candidates().len()).max().unwrap_or(0);
        let nth = |n| Choice::all().fold(Self::DEFAULT, |t, c| t.with(c, n % c.candidates().len()));
        (0..most).map(nth)
    }

    /// The same with this candidate of `choice`.
    ///
    /// # Panics
    /// If `choice` has no so many.
    #[must_use]
    pub fn with(mut self, choice: Choice, candidate: usize) -> Self {
        assert!(candidate < choice.candidates().len(), "{choice:?} has no candidate {candidate}");
        self.0[choice.place()] = candidate as u8;
        self
    }

    /// Which candidate of `choice` is taken.
    pub fn candidate(&self, choice: Choice) -> usize {
        self.0[choice.place()].into()
    }

    fn of<T: Copy>(&self, choice: Choice, candidates: &[T]) -> T {
        candidates[self.candidate(choice)]
    }

    /// See [`Choice::MatmulRows`].
    pub fn team(&self, numbers: Numbers, outputs: usize) -> Team {
        self.of(Choice::MatmulRows(numbers, Outputs::of(outputs)), &TEAMS)
    }

    /// See [`Choice::MatmulTiles`].
    pub fn tile(&self, numbers: Numbers, work: Work) -> Tile {
        let candidates = if work == Work::Small { &SMALL_TILES[..] } else { &LARGE_TILES };
        self.of(Choice::MatmulTiles(numbers, work), candidates)
    }

    /// See [`Choice::MatmulMatrices`].
    pub fn matrix_block(&self, half: bool, work: Work) -> MatrixBlock {
        let candidates =
            if work == Work::Small { &SMALL_MATRIX_BLOCKS[..] } else { &LARGE_MATRIX_BLOCKS };
        self.of(Choice::MatmulMatrices { half, work }, candidates)
    }

    /// See [`Choice::ExpertTiles`].
    pub fn expert_tile(&self, numbers: Numbers) -> ExpertTile {
        self.of(Choice::ExpertTiles(numbers), &EXPERT_TILES)
    }

    /// See [`Choice::ExpertMatrices`].
    pub fn expert_matrix_outputs(&self, half: bool) -> usize {
        self.of(Choice::ExpertMatrices { half }, &EXPERT_MATRIX_OUTPUTS)
    }

    /// See [`Choice::MatmulLanes`].
    pub fn lane_block(&self, numbers: Numbers) -> LaneBlock {
        self.of(Choice::MatmulLanes(numbers), &LANE_BLOCKS)
    }

    /// See [`Choice::MatmulLanesRows`].
    pub fn lane_outs(&self, numbers: Numbers) -> usize {
        self.of(Choice::MatmulLanesRows(numbers), &LANE_OUTS)
    }

    /// See [`Choice::MatmulTransposed`].
    pub fn splits(&self) -> usize {
        self.of(Choice::MatmulTransposed, &SPLITS)
    }

    /// See [`Choice::Attention`].
    pub fn attention_keys(&self) -> usize {
        self.of(Choice::Attention, &ATTENTION_KEYS)
    }

    /// See [`Choice::CausalAttention`].
    pub fn causal_keys(&self) -> usize {
        self.of(Choice::CausalAttention, &CAUSAL_KEYS)
    }

    /// The choices that are not the default, and which candidate each is.
    pub fn changes(&self) -> Vec<(Choice, usize)> {
        Choice::all().map(|c| (c, self.candidate(c))).filter(|&(_, taken)| taken != 0).collect()
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Debug for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.changes()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_have_places_and_names_of_their_own() {
        let places: Vec<_> = Choice::all().map(Choice::place).collect();
        assert_eq!(places, (0..Choice::COUNT).collect::<Vec<_>>());
        let mut names: Vec<_> = Choice::all().map(|c| (c.kernel(), c.class())).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), Choice::COUNT);
        for choice in Choice::all() {
            let mut candidates = choice.candidates();
            let count = candidates.len();
            candidates.sort();
            candidates.dedup();
            assert!(count > 1 && candidates.len() == count, "{choice:?}");
        }
    }

    #[test]
    fn a_choice_changes_nothing_else() {
        let choice = Choice::MatmulRows(Numbers::Blocks, Outputs::Middle);
        let tuning = Tuning::DEFAULT.with(choice, 4);
        assert_eq!(tuning.team(Numbers::Blocks, 4096), Team { lanes: 16, outs: 1 });
        assert_eq!(tuning.team(Numbers::Blocks, 2047), TEAMS[0]);
        assert_eq!(tuning.team(Numbers::Floats, 4096), TEAMS[0]);
        assert_eq!(tuning.changes(), [(choice, 4)]);
        assert_eq!(tuning.with(choice, 0), Tuning::DEFAULT);
    }

    #[test]
    fn no_part_has_fewer_keys_than_there_is_room_for() {
        let least = ATTENTION_KEYS.into_iter().chain(CAUSAL_KEYS).min();
        assert_eq!(least, Some(LEAST_KEYS_A_PART));
    }
}
