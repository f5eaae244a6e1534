// Matrix product where loads are dear, as on software adapters, whose lanes load one after the other.
// An invocation makes OUTS outputs of ROWS rows: no two lanes of a subgroup load the same weights. Nor
// the same of x: each loads 32 elements, of one of the ROWS rows, and shows them to the others.
// Flags and formula: lib/matmul.wgsl, but for those that few rows have, of matmul_lanes_rows. Grid:
// (output blocks, row blocks, groups).

override WG: u32 = 16u;
// Rows of x at a time are PARTS times PART. Of a part, all sums fit in registers.
override PARTS: u32 = 2u;
override PART: u32 = 4u;
const ROWS: u32 = PARTS * PART;
// Rows a workgroup serves.
override BLOCK: u32 = 8u;
// Outputs of an invocation.
override OUTS: u32 = 2u;
//#include matmul
//#include gated
//#include x_numbers

//#include block_of
//#if GATED
@group(0) @binding(next) var<storage, read> w3: array<Chunk>;  // as w
//#include weight_numbers W=w3
//#endif

@compute @workgroup_size(WG)
fn main(ids_in: Ids) {
    let block = block_of(ids_in.group);
    let n0 = ids_in.group.x * WG * OUTS + ids_in.lane;
    // Beyond the last, outputs and rows are made again, and dropped.
//#each J OUTS
    let at_$J = (block.weight_row + min(n0 + $Ju * WG, block.outputs - 1u)) * params.pitch;
//#end
    for (var b = 0u; b < min(block.rows, BLOCK); b += ROWS) {
        let mth = min(b + ids_in.sublane % ROWS, block.rows - 1u);
        let begin = x_begin(block, mth);
//#each P PARTS
//#each R PART
//#each J OUTS
        var acc_$J_$P_$R = 0.0;
//#end
//#if GATED
        var acc3_$P_$R = 0.0;
//#endif
//#end
//#end
        let last = (params.oct - 1u) / 4u;
        for (var g = 0u; g <= last; g++) {
            let mine = x_load(begin, g);
//#each J OUTS
            let w_$J = w_load(at_$J, g);
//#end
//#if GATED
            let w3_0 = w3_load(at_0, g);
//#endif
//#each J OUTS
            let v_$J = w_numbers(w_$J.raw);
//#end
//#if GATED
            let v3_0 = w3_numbers(w3_0.raw);
//#endif
//#each P PARTS
//#each R PART
            let sums_$P_$R = subgroupShuffle(mine.sums, $Pu * PART + $Ru);
//#each J OUTS
            acc_$J_$P_$R += w_shifts(w_$J, sums_$P_$R);
            var sum_$J_$P_$R = 0.0;
//#end
//#if GATED
            acc3_$P_$R += w3_shifts(w3_0, sums_$P_$R);
            var sum3_$P_$R = 0.0;
//#endif
//#end
//#each Q 8
//#each C 4
//#each R PART
            let x_$Q_$C_$P_$R = subgroupShuffle(mine.v.v[$Q][$C], $Pu * PART + $Ru);
//#each J OUTS
            sum_$J_$P_$R += v_$J.v[$Q][$C] * x_$Q_$C_$P_$R;
//#end
//#if GATED
            sum3_$P_$R += v3_0.v[$Q][$C] * x_$Q_$C_$P_$R;
//#endif
//#end
//#end
            // The first half ends.
            if $Q == 3 && w_halves {
//#each R PART
//#each J OUTS
                acc_$J_$P_$R += w_$J.first.scale * sum_$J_$P_$R;
                sum_$J_$P_$R = 0.0;
//#end
//#if GATED
                acc3_$P_$R += w3_0.first.scale * sum3_$P_$R;
                sum3_$P_$R = 0.0;
//#endif
//#end
            }
//#end
//#each R PART
//#each J OUTS
            acc_$J_$P_$R += w_$J.last.scale * sum_$J_$P_$R;
//#end
//#if GATED
            acc3_$P_$R += w3_0.last.scale * sum3_$P_$R;
//#endif
//#end
//#end
        }
//#each P PARTS
//#each R PART
        if b + $Pu * PART + $Ru < block.rows {
            let row = y_row(block.row0 + b + $Pu * PART + $Ru);
//#each J OUTS
            if n0 + $Ju * WG < block.outputs {
                var sum = acc_$J_$P_$R;
//#if GATED
                sum = gated(sum, acc3_$P_$R, weights[row]);
//#endif
                put(row, block.y_at + n0 + $Ju * WG, sum);
            }
//#end
        }
//#end
//#end
    }
}
