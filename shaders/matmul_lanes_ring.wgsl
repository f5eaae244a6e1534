// Matrix product of many rows where loads are dear, as on software adapters, whose lanes load one after
// the other. A lane has PART rows of x, and loads weights of an output of its own; these then go round
// the lanes, as around a ring, until each lane has multiplied all of them with its rows. So nothing is
// loaded twice, a weight is decoded once for WG * PART rows, and x is loaded once for all outputs of a
// workgroup, which are made WG at a time. Grid: (output blocks, row blocks, groups).
// Flags and formula: lib/matmul.wgsl.

// Lanes of a subgroup, which is the workgroup.
override WG: u32 = 8u;
// Rows of a lane.
const PART: u32 = 4u;
// Times WG outputs that a workgroup makes at most: params.outs.
override OUTS: u32 = 16u;
// How many times 32 elements are multiplied at once: two with flag TWO, for an even number of them.
override LOADED: u32 = 1u;
//#include matmul
//#include x_numbers

@compute @workgroup_size(WG)
fn main(ids_in: Ids) {
    let group = params.group + ids_in.group.z;
    let weight_row = ids_in.group.z * params.w_step + params.w_at;
    let x_at = group * params.x_step + params.x_at;
    let y_at = group * params.y_step + params.y_at + params.first;
    let row0 = ids_in.group.y * WG * PART;
    let rows = y_rows();
    let lane = ids_in.sublane;
    let n0 = ids_in.group.x * WG * params.outs;
    // Beyond the last, outputs and rows are made again, and dropped.
//#each R 4
    let row_$R = row0 + $Ru * WG + lane;
//#end
    var sums: array<vec4<f32>, OUTS * WG>;
    var xs: array<Xs, 4u * LOADED>;
    let last = (params.oct - 1u) / 4u;
    for (var g = 0u; g <= last; g += LOADED) {
        // In a loop that compilers do not unroll, since each has many loads.
        for (var i = 0u; i < 4u * LOADED; i += step.one) {
            let row = min(row0 + i % 4u * WG + lane, rows - 1u);
            xs[i] = x_load(row * params.x_cols + x_at, g + i / 4u);
        }
        for (var j = 0u; j < params.outs; j++) {
            let at = (weight_row + min(n0 + j * WG + lane, params.count - 1u)) * params.pitch;
//#if TWO
            let both = w_load_two(at, g);
            let w_0 = both.first;
            let w_1 = both.last;
//#else
            let w_0 = w_load(at, g);
//#endif
//#each L LOADED
            let v_$L = w_numbers(w_$L.raw);
//#end
            // Step by step: a compiler that unrolled this would take long.
            for (var o = 0u; o < WG; o += step.one) {
                let whose = (lane + o) % WG;
                var acc = vec4<f32>();
//#each L LOADED
                let shown_$L = shown(w_$L, whose);
                var sum_$L = vec4<f32>();
                var more_$L = vec4<f32>();
//#each Q 8
                let v_$L_$Q_0 = subgroupShuffle(v_$L.v[$Q].x, whose);
                let v_$L_$Q_1 = subgroupShuffle(v_$L.v[$Q].y, whose);
                let v_$L_$Q_2 = subgroupShuffle(v_$L.v[$Q].z, whose);
                let v_$L_$Q_3 = subgroupShuffle(v_$L.v[$Q].w, whose);
//#each R 4
                sum_$L[$R] += v_$L_$Q_0 * xs[4u * $Lu + $Ru].v.v[$Q].x;
                more_$L[$R] += v_$L_$Q_1 * xs[4u * $Lu + $Ru].v.v[$Q].y;
//#end
//#each R 4
                sum_$L[$R] += v_$L_$Q_2 * xs[4u * $Lu + $Ru].v.v[$Q].z;
                more_$L[$R] += v_$L_$Q_3 * xs[4u * $Lu + $Ru].v.v[$Q].w;
//#end
                // The first half ends.
                if $Q == 3 && w_halves {
                    acc += shown_$L.first.scale * (sum_$L + more_$L);
                    sum_$L = vec4<f32>();
                    more_$L = vec4<f32>();
                }
//#end
                acc += shown_$L.last.scale * (sum_$L + more_$L);
//#each R 4
                acc[$R] += w_shifts(shown_$L, xs[4u * $Lu + $Ru].sums);
//#end
//#end
                // Where to depends on all four, or compilers make them one after the other, each when it is
                // stored, of what they keep in memory meanwhile.
                let least = min(min(acc.x, acc.y), min(acc.z, acc.w));
                let sum = sums[j * WG + o];
                sums[(j * WG + o) * select(step.one, 1u, least > 0.0)] = sum + acc;
            }
        }
    }
    for (var j = 0u; j < params.outs; j++) {
        for (var o = 0u; o < WG; o += step.one) {
            let n = n0 + j * WG + (lane + o) % WG;
            if n < params.count {
                let sum = sums[j * WG + o];
//#each R 4
                if row_$R < rows {
                    put(row_$R, y_at + n, sum[$R]);
                }
//#end
            }
        }
    }
}

// The scales of another lane's weights.
fn shown(w: w_Loaded, lane: u32) -> w_Loaded {
    var shown = w;
    shown.last.scale = subgroupShuffle(w.last.scale, lane);
    shown.last.shift = subgroupShuffle(w.last.shift, lane);
    shown.first = shown.last;
    if w_halves {
        shown.first.scale = subgroupShuffle(w.first.scale, lane);
        shown.first.shift = subgroupShuffle(w.first.shift, lane);
    }
    return shown;
}
