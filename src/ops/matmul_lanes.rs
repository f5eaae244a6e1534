//! The matrix products of software adapters, whose lanes load one after the other: `matmul_lanes_rows`
//! for few rows, and for many `matmul_lanes`, or `matmul_lanes_pairs` where integers of 4 and 8 bits meet.

use super::quantize_activations::CodeOrder;
use crate::formats::BlockFormat::{Q4_0, Q4_1, Q4K};
use crate::gpu::tuning::Numbers;
use crate::gpu::{Kernel, Limits};
use crate::graph::{Elem, Tensor};

/// The widest subgroups there are kernels for.
const MOST_LANES: usize = 16;
/// Invocations of a workgroup of `matmul_lanes`.
const WG: usize = 16;
/// Rows whose sums it has in registers at a time.
const PART: usize = 4;
/// Elements of two groups.
const PAIR: usize = 64;

/// `matmul_lanes` or `matmul_lanes_pairs` for one weight.
#[derive(Clone, Copy)]
pub(super) struct Lanes {
    /// Lanes of a subgroup.
    pub width: usize,
    /// Threads that run workgroups.
    threads: usize,
    /// Whether it loads 64 bits at once.
    wide: bool,
    /// Whether rows are made of pairs of groups, of which more is loaded at once.
    paired: bool,
    /// Weights that are multiplied together: one, or two.
    banks: usize,
    /// Outputs an invocation makes of each.
    outs: usize,
    /// Rows whose x a subgroup has at a time.
    rows: usize,
    /// Outputs that an invocation of `matmul_lanes_rows` makes at most.
    most_outs: usize,
    /// The order of codes, of activations in 8 bits.
    codes: Option<CodeOrder>,
    /// Whether two outputs are made with one multiplication.
    pairs: bool,
    /// Whether the product is soon made.
    small: bool,
}

/// `matmul_lanes_rows` for one weight.
#[derive(Clone, Copy)]
pub(super) struct Few {
    lanes: Lanes,
    /// Rows whose x a subgroup has at a time.
    rows: usize,
    /// Outputs an invocation makes.
    pub outs: usize,
}

impl Lanes {
    /// For `banks` weights like `w` at once and activations in 8 bits or not, as tuned for such
    /// `numbers`; `None` if this device has other kernels. Of a `small` weight the product is soon
    /// made: less code, which is sooner compiled.
    pub fn of(
        limits: &Limits,
        w: &Tensor,
        small: bool,
        banks: usize,
        numbers: Numbers,
        codes: Option<CodeOrder>,
    ) -> Option<Self> {
        let width = limits.serial_lanes as usize;
        let block = limits.tuning.lane_block(numbers);
        let pairs = codes.is_some() && matches!(w.elem, Elem::Block(Q4_0 | Q4_1 | Q4K));
        let outs = match (pairs, small) {
            (true, true) => 2 / banks,
            (true, false) => 2 * block.outs / banks,
            (false, false) if banks == 1 => block.outs,
            (false, _) => 1,
        };
        let rows = width.min(if small { PART } else { block.rows });
        let most_outs = limits.tuning.lane_outs(numbers);
        let able = (1..=MOST_LANES).contains(&width);
        let paired = matches!(w.elem, Elem::Block(_)) && w.cols.is_multiple_of(PAIR);
        let wide = limits.wide_loads;
        let threads = limits.threads;
        let lanes = Self {
            width,
            threads,
            wide,
            paired,
            banks,
            outs,
            rows,
            most_outs,
            codes,
            pairs,
            small,
        };
        able.then_some(lanes)
    }

    /// Outputs and rows a workgroup makes.
    pub fn block(self) -> [usize; 2] {
        [WG * self.outs, self.width]
    }

    pub fn shader(self) -> &'static str {
        if self.pairs { "matmul_lanes_pairs" } else { "matmul_lanes" }
    }

    /// Whether the weight is to be bound again, after all others, since both of a pair are its outputs.
    pub fn again(self) -> bool {
        self.pairs && self.banks == 1
    }

    /// `kernel`, for blocks of so many rows.
    pub fn set(self, kernel: Kernel, block: usize) -> Kernel {
        let block = block.max(self.rows);
        if self.pairs {
            let pairs = self.outs * self.banks / 2;
            let consts = [("ROWS", self.rows), ("BLOCK", block), ("PAIRS", pairs)];
            return self.loads(kernel, &consts).flag_if(self.paired, "TWO");
        }
        let part = self.rows.min(PART);
        let consts =
            [("PART", part), ("PARTS", self.rows / part), ("BLOCK", block), ("OUTS", self.outs)];
        self.tell(kernel, &consts)
    }

    /// For steps of up to `rows` rows with a weight of so many outputs. Many of an invocation, since all
    /// are made with the same numbers of x, but such that workgroups are an even load for all threads.
    pub fn few(self, outputs: usize, rows: usize) -> Few {
        let teams = outputs.div_ceil(self.width);
        let workgroups = teams.div_ceil(self.most_outs).next_multiple_of(self.threads);
        let outs = teams.div_ceil(workgroups);
        Few { lanes: self, rows: rows.next_power_of_two().min(self.width), outs }
    }

    /// For more rows than these with weights of so many outputs, if there is a kernel for them.
    pub fn ring(self, outputs: usize) -> Option<(Ring, usize)> {
        let able = self.width == Ring::WIDTH && !self.pairs && !self.small;
        let teams = outputs.div_ceil(self.width);
        let outs = teams.div_ceil(teams.div_ceil(Ring::MOST_OUTS / self.banks));
        able.then_some((Ring { lanes: self, outs }, 2 * self.width))
    }

    fn tell(self, kernel: Kernel, consts: &[(&'static str, usize)]) -> Kernel {
        self.loads(kernel, consts)
            .flag_if(self.codes.is_some(), "EIGHT_BITS")
            .flag_if(self.codes == Some(CodeOrder::Bytes), "BYTES")
    }

    /// Sets constants, and how buffers are loaded from.
    fn loads(self, kernel: Kernel, consts: &[(&'static str, usize)]) -> Kernel {
        let kernel = consts.iter().fold(kernel, |k, &(name, value)| k.constant(name, value as u32));
        kernel.flag("SUBGROUPS").flag_if(self.wide, "WIDE")
    }
}

/// `matmul_lanes_ring` for one weight.
#[derive(Clone, Copy)]
pub(super) struct Ring {
    lanes: Lanes,
    /// Times as many outputs as lanes that a workgroup makes.
    pub outs: usize,
}

impl Ring {
    pub const SHADER: &str = "matmul_lanes_ring";
    /// Rows of a lane: the shader's `PART`.
    const PART: usize = 4;
    /// Times as many outputs as lanes that a workgroup makes at most, of all weights together.
    const MOST_OUTS: usize = 32;
    /// Lanes whose numbers go round in one instruction.
    const WIDTH: usize = 8;

    /// Outputs and rows a workgroup makes.
    pub fn block(self) -> [usize; 2] {
        [self.lanes.width * self.outs, self.lanes.width * Self::PART]
    }

    pub fn set(self, kernel: Kernel) -> Kernel {
        let lanes = self.lanes;
        let consts = [
            ("WG", lanes.width),
            ("OUTS", Self::MOST_OUTS / lanes.banks),
            ("LOADED", 1 + usize::from(lanes.paired)),
        ];
        let kernel = lanes.tell(kernel, &consts);
        kernel.flag_if(lanes.paired, "TWO").flag_if(lanes.paired && lanes.wide, "WIDER")
    }
}

impl Few {
    pub const SHADER: &str = "matmul_lanes_rows";

    /// Outputs and rows a workgroup makes.
    pub fn block(self) -> [usize; 2] {
        [self.lanes.width * self.outs, self.rows]
    }

    pub fn set(self, kernel: Kernel) -> Kernel {
        let lanes = self.lanes;
        // More rows would be more code than compilers are quick with.
        let two = lanes.paired && self.rows <= 2 && lanes.width / self.rows >= 2;
        let consts = [
            ("WG", lanes.width),
            ("ROWS", self.rows),
            ("OUTS", lanes.most_outs),
            ("LOADED", 1 + usize::from(two)),
        ];
        let kernel = lanes.tell(kernel, &consts).alone(true).flag_if(!lanes.small, "TOUCH");
        kernel.flag_if(two, "TWO").flag_if(two && lanes.wide, "WIDER")
    }
}
