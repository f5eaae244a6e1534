// Matrix product for few rows (decode): teams of LANES invocations each walk along a weight row.
// Flags and formula: lib/matmul.wgsl. Grid: (output blocks, row blocks, groups).

override WG: u32 = 64u;
// 16 lanes read 256 contiguous bytes of a 16-bit weight row at once.
override LANES: u32 = 16u;
// Weight rows a team walks at once, so that a loaded piece of x serves them all.
override OUTS: u32 = 2u;
// Rows of x a workgroup serves.
override ROWS: u32 = 1u;
//#include matmul
const TEAMS: u32 = WG / LANES;
const BLOCK: u32 = TEAMS * OUTS;

//#if EXPERTS
@group(0) @binding(5) var<storage, read> pages: array<u32>;  // [experts]: where an expert's rows are
@group(0) @binding(6) var<storage, read> ids: array<u32>;    // [slots]: the slot's expert
//#if GATED
@group(0) @binding(7) var<storage, read> weights: array<f32>;  // [slots]
@group(0) @binding(8) var<storage, read> w3: array<Raw>;       // as w
//#endif
//#endif

var<workgroup> partial: array<f32, LANES * BLOCK * ROWS>;
//#if GATED
var<workgroup> partial3: array<f32, LANES * BLOCK * ROWS>;
//#endif

@compute @workgroup_size(WG)
fn main(ids_in: Ids) {
    let lane = ids_in.lane % LANES;
    let team = ids_in.lane / LANES;
    let group = ids_in.group.z;
    let row0 = ids_in.group.y * ROWS;
    let rows = y_rows();
//#if EXPERTS
    // One slot a workgroup: another slot has another expert.
    let page = pages[ids[row0]];
    if page < params.first || page >= params.first + params.count {
        return;
    }
    let weight_row = (page - params.first) * params.n;
    let outputs = params.n;
    let first = 0u;
//#else
    let weight_row = group * params.n;
    let outputs = params.count;
    let first = params.first;
//#endif
    // The block's first output, counted within this part and group.
    let block = ids_in.group.x * BLOCK;
    let out0 = block + team * OUTS;

    var acc: array<f32, OUTS * ROWS>;
//#if GATED
    var acc3: array<f32, OUTS * ROWS>;
//#endif
    for (var i = 0u; i < OUTS * ROWS; i++) {
        acc[i] = 0.0;
//#if GATED
        acc3[i] = 0.0;
//#endif
    }
    for (var o = lane; o < params.oct; o += LANES) {
        var xs: array<Oct, ROWS>;
        for (var r = 0u; r < ROWS; r++) {
            let row = min(row0 + r, rows - 1u) / params.share;
            xs[r] = load_x(row * params.x_cols + group * params.k, o * 8u);
        }
        for (var j = 0u; j < OUTS; j++) {
            if out0 + j < outputs {
                let at = (weight_row + out0 + j) * params.oct + o;
                let v = decode(w[at]);
//#if GATED
                let v3 = decode(w3[at]);
//#endif
                for (var r = 0u; r < ROWS; r++) {
                    acc[j * ROWS + r] += oct_dot(v, xs[r]);
//#if GATED
                    acc3[j * ROWS + r] += oct_dot(v3, xs[r]);
//#endif
                }
            }
        }
    }
    for (var j = 0u; j < OUTS; j++) {
        for (var r = 0u; r < ROWS; r++) {
            let at = ((team * OUTS + j) * ROWS + r) * LANES + lane;
            partial[at] = acc[j * ROWS + r];
//#if GATED
            partial3[at] = acc3[j * ROWS + r];
//#endif
        }
    }
    workgroupBarrier();
    for (var i = ids_in.lane; i < BLOCK * ROWS; i += WG) {
        let n = block + i / ROWS;
        let row = row0 + i % ROWS;
        if n >= outputs || row >= rows {
            continue;
        }
        var sum = 0.0;
        for (var l = 0u; l < LANES; l++) {
            sum += partial[i * LANES + l];
        }
//#if GATED
        var up = 0.0;
        for (var l = 0u; l < LANES; l++) {
            up += partial3[i * LANES + l];
        }
        sum = gated(sum, up, weights[row]);
//#endif
        let col = group * params.n + first + n;
//#if BIAS
        sum += bias[col];
//#endif
        let at = row * params.y_cols + col;
//#if RESIDUAL
        sum += residual[at];
//#endif
        y[at] = sum;
    }
}
