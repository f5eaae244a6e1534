// Matrix product with weights of 4 bits and x in 8, multiplied as integers, where loads are dear, as on
// software adapters. As matmul_lanes, but that two outputs are made at once: a word holds the code of one
// and, times 2^16, that of the other, and so does their sum of 32 products with x, each of which is at
// most 8 * 127 and all together less than 2^15.
// The two are of w and w3: with GATED the same output of both banks, else another output of w, which is
// bound twice. Flags and formula: lib/matmul.wgsl. Grid: (output blocks, row blocks, groups).

override WG: u32 = 16u;
// Rows of x at a time.
override ROWS: u32 = 8u;
// Rows a workgroup serves.
override BLOCK: u32 = 8u;
// Pairs that an invocation makes.
override PAIRS: u32 = 2u;
// With flag TWO scales of two times 32 elements are loaded at once.
//#include matmul
//#include gated
//#include x_integers
//#include weight_numbers W=w
//#include block_of
@group(0) @binding(next) var<storage, read> w3: array<Chunk>;
//#include weight_numbers W=w3
//#include pairs/?

@compute @workgroup_size(WG)
fn main(ids_in: Ids) {
    let block = block_of(ids_in.group);
//#if GATED
    let first = ids_in.group.x * WG * PAIRS + ids_in.lane;
    let step = WG;
    let apart = 0u;
//#else
    let first = ids_in.group.x * 2u * WG * PAIRS + ids_in.lane;
    let step = 2u * WG;
    let apart = WG;
//#endif
    // Beyond the last, outputs and rows are made again, and dropped.
//#each P PAIRS
    let n_$P = first + $Pu * step;
    let at_$P = (block.weight_row + min(n_$P, block.outputs - 1u)) * params.pitch;
    let at3_$P = (block.weight_row + min(n_$P + apart, block.outputs - 1u)) * params.pitch;
//#end
    for (var b = 0u; b < min(block.rows, BLOCK); b += ROWS) {
        let mth = min(b + ids_in.sublane % ROWS, block.rows - 1u);
        let begin = x_begin(block, mth);
//#each R ROWS
//#each P PAIRS
        var acc_$P_$R = vec2<f32>();
//#end
//#end
//#if TWO
//#each P PAIRS
        var scales_$P = TwoScales();
        var scales3_$P = TwoScales();
//#end
//#endif
        for (var g = 0u; g < params.oct / 4u; g++) {
//#if TWO
            if g % 2u == 0u {
//#each P PAIRS
                scales_$P = w_two_scales(at_$P, g);
                scales3_$P = w3_two_scales(at3_$P, g);
//#end
            }
//#endif
            let mine = x_load(begin, g);
//#each P PAIRS
//#if TWO
            let w_$P = w_load_codes(at_$P, g, scales_$P);
            let w3_$P = w3_load_codes(at3_$P, g, scales3_$P);
//#else
            let w_$P = w_load(at_$P, g);
            let w3_$P = w3_load(at3_$P, g);
//#endif
//#end
//#each P PAIRS
            let v_$P = pairs(w_$P.raw, w3_$P.raw);
//#end
//#each R ROWS
//#each P PAIRS
            var sum_$P_$R = 0;
//#end
//#each Q 8
//#each C 4
            let x_$Q_$C_$R = subgroupShuffle(mine.v.v[$Q][$C], $Ru);
//#each P PAIRS
            sum_$P_$R += v_$P.v[$Q][$C] * x_$Q_$C_$R;
//#end
//#end
//#end
            let scale_$R = subgroupShuffle(mine.scale, $Ru);
            let sums_$R = subgroupShuffle(mine.sums, $Ru);
//#each P PAIRS
            acc_$P_$R += vec2(w_$P.last.scale, w3_$P.last.scale) * scale_$R * parted(sum_$P_$R)
                + vec2(w_shifts(w_$P, sums_$R), w3_shifts(w3_$P, sums_$R));
//#end
//#end
        }
//#each R ROWS
        if b + $Ru < block.rows {
            let row = y_row(block.row0 + b + $Ru);
//#each P PAIRS
//#if GATED
            if n_$P < block.outputs {
                put(row, block.y_at + n_$P, gated(acc_$P_$R.x, acc_$P_$R.y, weights[row]));
            }
//#else
            if n_$P < block.outputs {
                put(row, block.y_at + n_$P, acc_$P_$R.x);
            }
            if n_$P + apart < block.outputs {
                put(row, block.y_at + n_$P + apart, acc_$P_$R.y);
            }
//#endif
//#end
        }
//#end
    }
}

// The two sums in one.
fn parted(sum: i32) -> vec2<f32> {
    return vec2(f32((sum << 16u) >> 16u), f32((sum + 0x8000) >> 16u));
}
