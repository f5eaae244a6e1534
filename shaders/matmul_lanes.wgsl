// Matrix product where loads are dear, as on software adapters, whose lanes load one after the other.
// An invocation makes OUTS outputs of ROWS rows: no two lanes of a subgroup load the same weights. Nor
// the same of x: each loads 32 elements, of one of the ROWS rows, and shows them to the others. With
// fewer rows than lanes, these load that much further ahead.
// Flags and formula: lib/matmul.wgsl. With EXPERTS, flag FEW: a workgroup for a slot, rather than for a
// tile of slots. Grid: (output blocks, row blocks, groups).

override WG: u32 = 16u;
// Lanes of a subgroup.
override LANES: u32 = 8u;
// Rows of x at a time: a power of two, LANES at most.
override ROWS: u32 = 8u;
// Rows a workgroup serves.
override BLOCK: u32 = 8u;
// Outputs of an invocation.
override OUTS: u32 = 2u;
//#include matmul
//#include matmul_f32
//#include weight_numbers W=w

//#if EXPERTS
//#if FEW
@group(0) @binding(5) var<storage, read> pages: array<u32>;  // [experts]: where an expert's rows are
@group(0) @binding(6) var<storage, read> ids: array<u32>;    // [slots]: the slot's expert
//#if GATED
@group(0) @binding(7) var<storage, read> weights: array<f32>;  // [slots]
//#if WIDE
@group(0) @binding(8) var<storage, read> w3: array<vec2<u64>>;  // as w
//#else
@group(0) @binding(8) var<storage, read> w3: array<vec4<u32>>;  // as w
//#endif
//#endif
//#else
//#include expert_tile
//#if GATED
@group(0) @binding(8) var<storage, read> weights: array<f32>;  // [slots]
//#if WIDE
@group(0) @binding(9) var<storage, read> w3: array<vec2<u64>>;  // as w
//#else
@group(0) @binding(9) var<storage, read> w3: array<vec4<u32>>;  // as w
//#endif
//#endif
//#endif
//#if GATED
//#include weight_numbers W=w3
//#endif
//#endif

// Elements 32 * g and on of the row of x at `begin`; zeros beyond its end.
fn x_numbers(begin: u32, g: u32) -> Numbers {
    let o = 4u * g;
    return numbers_of(
        x_oct(begin, o), x_oct(begin, o + 1u), x_oct(begin, o + 2u), x_oct(begin, o + 3u),
    );
}

fn x_oct(begin: u32, o: u32) -> Oct {
    let there = load_x(begin, min(o, params.oct - 1u) * 8u);
    let zero = vec4<f32>();
    return Oct(select(zero, there.lo, o < params.oct), select(zero, there.hi, o < params.oct));
}

@compute @workgroup_size(WG)
fn main(ids_in: Ids) {
    let group = params.group + ids_in.group.z;
    // The block's first row and how many there are from it on; with tiles, of `sorted`.
//#if EXPERTS
//#if FEW
    let row0 = ids_in.group.y;
    let rows = 1u;
    let page = pages[ids[row0]];
//#else
    if ids_in.group.y >= tiles[0].expert {
        return;
    }
    let tile = tiles[ids_in.group.y + 1u];
    let row0 = tile.first;
    let rows = tile.count;
    let page = pages[tile.expert];
//#endif
    if page < params.first || page >= params.first + params.count {
        return;
    }
    let weight_row = (page - params.first) * params.n;
    let outputs = params.n;
    let first = 0u;
//#else
    let row0 = ids_in.group.y * BLOCK;
    let rows = y_rows() - row0;
    let weight_row = ids_in.group.z * params.w_step + params.w_at;
    let outputs = params.count;
    let first = params.first;
//#endif
    let x_at = group * params.x_step + params.x_at;
    let y_at = group * params.y_step + params.y_at + first;
    let n0 = ids_in.group.x * WG * OUTS + ids_in.lane;
    // Beyond the last, outputs and rows are made again, and dropped.
//#each J OUTS
    let at_$J = (weight_row + min(n0 + $Ju * WG, outputs - 1u)) * params.pitch;
//#end
    let ahead = LANES / ROWS;
    for (var b = 0u; b < min(rows, BLOCK); b += ROWS) {
        let begin = x_row(row0 + min(b + ids_in.sublane % ROWS, rows - 1u)) * params.x_cols + x_at;
//#each R ROWS
//#each J OUTS
        var acc_$J_$R = 0.0;
//#end
//#if GATED
        var acc3_$R = 0.0;
//#endif
//#end
        for (var g0 = 0u; g0 * 4u < params.oct; g0 += ahead) {
            let mine = x_numbers(begin, g0 + ids_in.sublane / ROWS);
            for (var i = 0u; i < ahead && (g0 + i) * 4u < params.oct; i += step.one) {
                let g = g0 + i;
//#each J OUTS
                let v_$J = w_scaled_numbers(at_$J, g);
//#end
//#if GATED
                let v3 = w3_scaled_numbers(at_0, g);
//#endif
//#each R ROWS
                {
//#each J OUTS
                    var sum_$J = vec4<f32>();
//#end
//#if GATED
                    var sum3 = vec4<f32>();
//#endif
//#each Q 8
                    let x_$Q = subgroupShuffle(mine.v[$Q], i * ROWS + $Ru);
//#each J OUTS
                    sum_$J += v_$J.v[$Q] * x_$Q;
//#end
//#if GATED
                    sum3 += v3.v[$Q] * x_$Q;
//#endif
//#end
//#each J OUTS
                    acc_$J_$R += dot(sum_$J, vec4(1.0));
//#end
//#if GATED
                    acc3_$R += dot(sum3, vec4(1.0));
//#endif
                }
//#end
            }
        }
//#each R ROWS
        if b + $Ru < rows {
            let row = y_row(row0 + b + $Ru);
//#each J OUTS
            if n0 + $Ju * WG < outputs {
                var sum = acc_$J_$R;
//#if GATED
                sum = gated(sum, acc3_$R, weights[row]);
//#endif
                let col = y_at + n0 + $Ju * WG;
//#if BIAS
                sum += bias[col];
//#endif
                let to = row * params.y_cols + col;
//#if RESIDUAL
                sum += residual[to];
//#endif
                y[to] = sum;
            }
//#end
        }
//#end
    }
}

// The row of y that is the block's `m`th row, and that of x which it is made of.
fn y_row(m: u32) -> u32 {
//#if EXPERTS
//#if FEW
    return m;
//#else
    return sorted[m];
//#endif
//#else
    return m;
//#endif
}

fn x_row(m: u32) -> u32 {
    return y_row(m) / params.share;
}
