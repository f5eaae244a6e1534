// Matrix product for few rows (decode) of activations in 8 bits: teams of LANES invocations each walk
// along a weight row, 32 elements at a time. Flags and formula: lib/matmul.wgsl. Grid: (output blocks, row blocks, groups).

override WG: u32 = 64u;
// 8 lanes read 128 contiguous bytes of a row of 4-bit weights at once.
override LANES: u32 = 8u;
// Weight rows a team walks at once, so that a loaded piece of x serves them all.
override OUTS: u32 = 4u;
// Rows of x a workgroup serves.
override ROWS: u32 = 1u;
//#include matmul
//#include gated
//#include matmul_q8
//#include x_row
const TEAMS: u32 = WG / LANES;
const BLOCK: u32 = TEAMS * OUTS;

//#if EXPERTS
@group(0) @binding(5) var<storage, read> pages: array<u32>;  // [experts]: where an expert's rows are
@group(0) @binding(6) var<storage, read> ids: array<u32>;    // [slots]: the slot's expert
//#if GATED
@group(0) @binding(7) var<storage, read> weights: array<f32>;  // [slots]
@group(0) @binding(8) var<storage, read> w3: array<vec4<u32>>;  // as w
//#include weight_q8 W=w3
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
    let group = params.group + ids_in.group.z;
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
    let weight_row = ids_in.group.z * params.w_step + params.w_at;
    let outputs = params.count;
    let first = params.first;
//#endif
    let x_at = group * params.x_step + params.x_at;
    let y_at = group * params.y_step + params.y_at + first;
    // The block's first output, counted within this part and group.
    let block = ids_in.group.x * BLOCK;
    let out0 = block + team * OUTS;

    // Beyond the last output a row is read again, and what comes of it is dropped.
    var at: array<u32, OUTS>;
    for (var j = 0u; j < OUTS; j++) {
        at[j] = (weight_row + min(out0 + j, outputs - 1u)) * params.pitch;
    }
    var x_begin: array<u32, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
        x_begin[r] = x_row(min(row0 + r, rows - 1u)) * params.x_cols + x_at;
    }
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
    for (var g = lane; g * 4u < params.oct; g += LANES) {
        var xs: array<Activations, ROWS>;
        for (var r = 0u; r < ROWS; r++) {
            xs[r] = x[x_begin[r] + g];
        }
        for (var j = 0u; j < OUTS; j++) {
            let v = w_packed(at[j], g);
            let s = w_scales(at[j], g);
//#if GATED
            let v3 = w3_packed(at[j], g);
            let s3 = w3_scales(at[j], g);
//#endif
            for (var r = 0u; r < ROWS; r++) {
                acc[j * ROWS + r] += w_dot8(v, s, xs[r]);
//#if GATED
                acc3[j * ROWS + r] += w3_dot8(v3, s3, xs[r]);
//#endif
            }
        }
    }
    for (var j = 0u; j < OUTS; j++) {
        for (var r = 0u; r < ROWS; r++) {
            let to = ((team * OUTS + j) * ROWS + r) * LANES + lane;
            partial[to] = acc[j * ROWS + r];
//#if GATED
            partial3[to] = acc3[j * ROWS + r];
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
        put(row, y_at + n, sum);
    }
}
