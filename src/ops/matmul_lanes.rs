//! The matrix products of software adapters, whose lanes load one after the other: `matmul_lanes_rows`
//! for few rows and `matmul_lanes` for many.

use super::quantize_activations::CodeOrder;
use crate::gpu::tuning::Numbers;
use crate::gpu::{Kernel, Limits};

/// The widest subgroups there are kernels for.
const MOST_LANES: usize = 16;
/// Invocations of a workgroup of `matmul_lanes`.
const WG: usize = 16;
/// Rows whose sums it has in registers at a time.
const PART: usize = 4;

/// `matmul_lanes` for one weight.
#[derive(Clone, Copy)]
pub(super) struct Lanes {
    /// Lanes of a subgroup.
    pub width: usize,
    /// Whether it loads 64 bits at once.
    wide: bool,
    /// Outputs an invocation makes, of one bank or of two together.
    outs: usize,
    /// Rows whose x a subgroup has at a time.
    rows: usize,
    /// Outputs that an invocation of `matmul_lanes_rows` makes at most.
    most_outs: usize,
    /// The order of codes, of activations in 8 bits.
    codes: Option<CodeOrder>,
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
    pub const SHADER: &str = "matmul_lanes";

    /// For `banks` weights at once and activations in 8 bits or not, as tuned for such `numbers`;
    /// `None` if this device has other kernels. Of a `small` weight the product is soon made: less
    /// code, which is sooner compiled.
    pub fn of(
        limits: &Limits,
        small: bool,
        banks: usize,
        numbers: Numbers,
        codes: Option<CodeOrder>,
    ) -> Option<Self> {
        let width = limits.serial_lanes as usize;
        let block = limits.tuning.lane_block(numbers);
        // The kernel makes one output of two banks.
        let outs = if small || banks > 1 { 1 } else { block.outs };
        let rows = width.min(if small { PART } else { block.rows });
        let most_outs = limits.tuning.lane_outs(numbers);
        let able = (1..=MOST_LANES).contains(&width);
        able.then_some(Self { width, wide: limits.wide_loads, outs, rows, most_outs, codes })
    }

    /// Outputs and rows a workgroup makes.
    pub fn block(self) -> [usize; 2] {
        [WG * self.outs, self.width]
    }

    /// `kernel`, for blocks of so many rows.
    pub fn set(self, kernel: Kernel, block: usize) -> Kernel {
        let part = self.rows.min(PART);
        let consts = [
            ("PART", part),
            ("PARTS", self.rows / part),
            ("BLOCK", block.max(self.rows)),
            ("OUTS", self.outs),
        ];
        self.tell(kernel, &consts)
    }

    /// For steps of up to `rows` rows with a weight of so many outputs. Many of an invocation, since all
    /// are made with the same numbers of x, but such that workgroups are an even load for few threads.
    pub fn few(self, outputs: usize, rows: usize) -> Few {
        let teams = outputs.div_ceil(self.width);
        let workgroups = teams.div_ceil(self.most_outs).next_multiple_of(4);
        let outs = teams.div_ceil(workgroups);
        Few { lanes: self, rows: rows.next_power_of_two().min(self.width), outs }
    }

    fn tell(self, kernel: Kernel, consts: &[(&'static str, usize)]) -> Kernel {
        let kernel = consts.iter().fold(kernel, |k, &(name, value)| k.constant(name, value as u32));
        kernel
            .flag("SUBGROUPS")
            .flag_if(self.wide, "WIDE")
            .flag_if(self.codes.is_some(), "EIGHT_BITS")
            .flag_if(self.codes == Some(CodeOrder::Bytes), "BYTES")
    }
}

impl Few {
    pub const SHADER: &str = "matmul_lanes_rows";

    /// Outputs and rows a workgroup makes.
    pub fn block(self) -> [usize; 2] {
        [self.lanes.width * self.outs, self.rows]
    }

    pub fn set(self, kernel: Kernel) -> Kernel {
        let most_outs = self.lanes.most_outs;
        let consts = [("WG", self.lanes.width), ("ROWS", self.rows), ("OUTS", most_outs)];
        self.lanes.tell(kernel, &consts)
    }
}
