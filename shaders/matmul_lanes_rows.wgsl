// Matrix product of few rows where loads are dear, as on software adapters, whose lanes load one after
// the other. An invocation makes outputs of ROWS rows, one after the other and 32 elements at a time: the
// loop that does so is short enough for a processor to keep it decoded. Of x each lane loads 32 elements,
// of one of the rows, and shows them to the others; lanes beyond the rows load that much further ahead.
// Flag TOUCH: weights are loaded ahead, see lib/touch.wgsl. Other flags and the formula: lib/matmul.wgsl. With
// EXPERTS a workgroup is for a slot. Grid: (output blocks, row blocks, groups).

// Lanes of a subgroup, which is the workgroup.
override WG: u32 = 8u;
// Rows of x at a time, a power of two, and how many lanes there are for each.
override ROWS: u32 = 1u;
const AHEAD = WG / ROWS;
// Sums of a row that are added to in turn: an addition takes as long as several can begin in.
const CHAINS = max(4u / ROWS, 1u);
// Outputs of an invocation at most.
override OUTS: u32 = 8u;
// How many times 32 elements of a weight are loaded at once: two with flag TWO.
override LOADED: u32 = 1u;
//#include matmul
//#include gated
//#include x_numbers
//#include x_row
//#if TOUCH
//#include touch W=w
//#endif

//#if EXPERTS
@group(0) @binding(5) var<storage, read> pages: array<u32>;  // [experts]: where an expert's rows are
@group(0) @binding(6) var<storage, read> ids: array<u32>;    // [slots]: the slot's expert
//#if GATED
@group(0) @binding(7) var<storage, read> weights: array<f32>;  // [slots]
//#endif
//#endif
//#if GATED
@group(0) @binding(next) var<storage, read> w3: array<Chunk>;  // as w; without EXPERTS w again
//#include weight_numbers W=w3
//#if TOUCH
//#include touch W=w3
//#endif
//#endif

@compute @workgroup_size(WG)
fn main(ids_in: Ids) {
    let group = params.group + ids_in.group.z;
    let row0 = ids_in.group.y * ROWS;
    let rows = y_rows();
//#if EXPERTS
    let page = pages[ids[row0]];
    if page < params.first || page >= params.first + params.count {
        return;
    }
    let weight_row = (page - params.first) * params.n;
    let outputs = params.n;
    let first = 0u;
//#else
    let weight_row = ids_in.group.z * params.w_step + params.w_at;
    let outputs = params.count;
    let first = params.first;
//#endif
    let x_at = group * params.x_step + params.x_at;
    let y_at = group * params.y_step + params.y_at + first;
    let n0 = (ids_in.group.x * WG + ids_in.lane) * params.outs;
    let begin = x_row(min(row0 + ids_in.sublane % ROWS, rows - 1u)) * params.x_cols + x_at;

    var output0 = 0u;
//#if TOUCH
    let touched = weight_row + ids_in.group.x * WG * params.outs;
    let touched_end = min(touched + WG * params.outs, weight_row + outputs);
    output0 = w_touch(touched, touched_end, 0u, ids_in.lane);
//#if GATED
    output0 |= w3_touch(touched, touched_end, params.up, ids_in.lane);
//#endif
//#endif

    var sums: array<f32, OUTS * ROWS>;
//#if GATED
    var sums3: array<f32, OUTS * ROWS>;
//#endif
//#if NORM
    var squares = 0.0;
//#endif
    let last = (params.oct - 1u) / 4u;
    for (var g0 = 0u; g0 <= last; g0 += AHEAD) {
        let mine_at = g0 + ids_in.sublane / ROWS;
        let mine = x_load(begin, min(mine_at, last));
//#if NORM
        squares += select(0.0, mine.squares, mine_at <= last);
//#endif
        for (var j = output0; j < params.outs; j++) {
            // Beyond the last output it is made again, and dropped.
            let at = (weight_row + min(n0 + j, outputs - 1u)) * params.pitch;
//#each R ROWS
            var acc_$R = 0.0;
//#if GATED
            var acc3_$R = 0.0;
//#endif
//#end
            for (var i = 0u; i < AHEAD; i += LOADED) {
                let g = g0 + i;
                if g > last {
                    break;
                }
//#if TWO
                let both = w_load_two(at, g);
                let w_0 = both.first;
                let w_1 = both.last;
//#if GATED
                let both3 = w3_load_two(at + params.up, g);
                let w3_0 = both3.first;
                let w3_1 = both3.last;
//#endif
//#else
                let w_0 = w_load(at, g);
//#if GATED
                let w3_0 = w3_load(at + params.up, g);
//#endif
//#endif
//#each L LOADED
                let v_$L = w_numbers(w_$L.raw);
//#if GATED
                let v3_$L = w3_numbers(w3_$L.raw);
//#endif
//#each R ROWS
                let sums_$L_$R = subgroupShuffle(mine.sums, (i + $Lu) * ROWS + $Ru);
                acc_$R += w_shifts(w_$L, sums_$L_$R);
                var sum_$L_$R = vec4<f32>();
//#if GATED
                acc3_$R += w3_shifts(w3_$L, sums_$L_$R);
                var sum3_$L_$R = vec4<f32>();
//#endif
//#end
//#each Q 8
//#each C 4
//#each R ROWS
                let x_$L_$Q_$C_$R = subgroupShuffle(mine.v.v[$Q][$C], (i + $Lu) * ROWS + $Ru);
                sum_$L_$R[$C % CHAINS] += v_$L.v[$Q][$C] * x_$L_$Q_$C_$R;
//#if GATED
                sum3_$L_$R[$C % CHAINS] += v3_$L.v[$Q][$C] * x_$L_$Q_$C_$R;
//#endif
//#end
//#end
                // The first half ends.
                if $Q == 3 && w_halves {
//#each R ROWS
                    acc_$R += w_$L.first.scale * total(sum_$L_$R);
                    sum_$L_$R = vec4<f32>();
//#if GATED
                    acc3_$R += w3_$L.first.scale * total(sum3_$L_$R);
                    sum3_$L_$R = vec4<f32>();
//#endif
//#end
                }
//#end
//#each R ROWS
                acc_$R += w_$L.last.scale * total(sum_$L_$R);
//#if GATED
                acc3_$R += w3_$L.last.scale * total(sum3_$L_$R);
//#endif
//#end
//#end
            }
//#each R ROWS
            sums[j * ROWS + $Ru] += acc_$R;
//#if GATED
            sums3[j * ROWS + $Ru] += acc3_$R;
//#endif
//#end
        }
    }
//#if NORM
//#each R ROWS
    let factor_$R = norm_factor(subgroupAdd(select(0.0, squares, ids_in.sublane % ROWS == $Ru)));
//#end
//#endif
    for (var j = 0u; j < params.outs; j++) {
        let n = n0 + j;
        if n >= outputs {
            break;
        }
//#each R ROWS
        if row0 + $Ru < rows {
            let row = row0 + $Ru;
            var sum = sums[j * ROWS + $Ru];
//#if GATED
            var up = sums3[j * ROWS + $Ru];
//#endif
//#if NORM
            sum *= factor_$R;
//#if GATED
            up *= factor_$R;
//#endif
//#endif
//#if GATED
//#if EXPERTS
            sum = gated(sum, up, weights[row]);
//#else
            sum = gated(sum, up, 1.0);
//#endif
//#endif
            put(row, y_at + n, sum);
        }
//#end
    }
}

// Of the sums that are added to in turn.
fn total(sums: vec4<f32>) -> f32 {
    if CHAINS == 1u {
        return sums.x;
    }
    if CHAINS == 2u {
        return sums.x + sums.y;
    }
    return (sums.x + sums.y) + (sums.z + sums.w);
}
