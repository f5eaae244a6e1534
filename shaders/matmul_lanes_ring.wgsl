// Matrix product of many rows where loads are dear, as on software adapters, whose lanes load one after
// the other. A lane has PART rows of x, and loads weights of an output of its own; these then go round
// the lanes, as around a ring, until each lane has multiplied all of them with its rows. So nothing is
// loaded twice, a weight is decoded once for WG * PART rows, and x is loaded once for all outputs of a
// workgroup, which are made WG at a time.
// Flags and formula: lib/matmul.wgsl. Grid: (output blocks, row blocks, groups).

// Lanes of a subgroup, which is the workgroup.
override WG: u32 = 8u;
// Rows of a lane.
const PART: u32 = 4u;
// Rows of a workgroup.
const BLOCK: u32 = WG * PART;
// Times WG outputs that a workgroup makes at most: params.outs.
override OUTS: u32 = 16u;
// How many times 32 elements are multiplied at once: two with flag TWO, for an even number of them.
override LOADED: u32 = 1u;
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
    let lane = ids_in.sublane;
    let n0 = ids_in.group.x * WG * params.outs;
    var sums_w: array<vec4<f32>, OUTS * WG>;
//#if GATED
    var sums_w3: array<vec4<f32>, OUTS * WG>;
//#endif
    var xs: array<Xs, 4u * LOADED>;
    var groups = (params.oct + 3u) / 4u;
//#if EXPERTS
    // There may be nothing to make.
    groups *= u32(block.outputs > 0u);
//#endif
    for (var g = 0u; g < groups; g += LOADED) {
        // In a loop that compilers do not unroll, since each has many loads. Beyond the last, rows and
        // outputs are made again, and dropped.
        for (var i = 0u; i < 4u * LOADED; i += step.one) {
            let m = min(i % 4u * WG + lane, block.rows - 1u);
            xs[i] = x_load(x_begin(block, m), g + i / 4u);
        }
        for (var j = 0u; j < params.outs; j++) {
            let at = (block.weight_row + min(n0 + j * WG + lane, block.outputs - 1u)) * params.pitch;
//#include ring W=w
//#if GATED
//#include ring W=w3
//#endif
        }
    }
//#each R 4
    let m_$R = $Ru * WG + lane;
    let row_$R = y_row(block.row0 + min(m_$R, block.rows - 1u));
//#end
    for (var j = 0u; j < params.outs; j++) {
        for (var o = 0u; o < WG; o += step.one) {
            let n = n0 + j * WG + (lane + o) % WG;
            if n < block.outputs {
                let sum = sums_w[j * WG + o];
//#if GATED
                let up = sums_w3[j * WG + o];
//#endif
//#each R 4
                if m_$R < block.rows {
//#if GATED
                    put(row_$R, block.y_at + n, gated(sum[$R], up[$R], weights[row_$R]));
//#else
                    put(row_$R, block.y_at + n, sum[$R]);
//#endif
                }
//#end
            }
        }
    }
}
