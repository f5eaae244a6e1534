// Product with a weight whose rows are the inner index: a workgroup makes 8 * WG / SPLIT columns of
// ROWS rows of y. An invocation owns 8 columns, neighbours read neighbouring ones, and of SPLIT that
// own the same each takes every SPLIT-th weight row; a decoded weight serves all rows.
// Grid: (column blocks, row blocks, groups).
// With ALONE, SPLIT is 1 and nothing has to be handed over.
//
// y[t, y_at(g) + n] = sum_k x[t, x_at(g) + k] * w[w_at(g) + k, n]

override WG: u32 = 64u;
override SPLIT: u32 = 4u;
override ROWS: u32 = 1u;
//#include matmul_params
const OCTS: u32 = WG / SPLIT;

@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> w: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
//#include weight W=w

//#if ALONE
//#else
var<workgroup> partial: array<Oct, WG>;
//#endif

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let o = ids.group.x * OCTS + ids.lane % OCTS;
    let split = ids.lane / OCTS;
    let row0 = ids.group.y * ROWS;
    let rows = y_rows();
    let group = params.group + ids.group.z;
    let weight_row = ids.group.z * params.w_step + params.w_at;
    let x_at = group * params.x_step + params.x_at;
    let y_at = group * params.y_step + params.y_at + o * 8u;

    // Beyond the last, columns and rows are made again, and dropped.
    let mine = min(o, (params.n - 1u) / 8u);
    var acc: array<Oct, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
        acc[r] = Oct(vec4(0.0), vec4(0.0));
    }
    for (var k = split; k < params.k; k += SPLIT) {
        let v = w_oct((weight_row + k) * params.pitch, mine);
        for (var r = 0u; r < ROWS; r++) {
            let a = x[min(row0 + r, rows - 1u) * params.x_cols + x_at + k];
            acc[r].lo += a * v.lo;
            acc[r].hi += a * v.hi;
        }
    }
    for (var r = 0u; r < ROWS; r++) {
//#if ALONE
//#else
        partial[ids.lane] = acc[r];
        workgroupBarrier();
//#endif
        let row = row0 + r;
        if split == 0u && row < rows && o * 8u < params.n {
//#if ALONE
            let sum = acc[r];
//#else
            var sum = partial[ids.lane];
            for (var s = 1u; s < SPLIT; s++) {
                let more = partial[ids.lane + s * OCTS];
                sum.lo += more.lo;
                sum.hi += more.hi;
            }
//#endif
            for (var i = 0u; i < min(params.n - o * 8u, 8u); i++) {
                y[row * params.y_cols + y_at + i] = select(sum.hi[i % 4u], sum.lo[i % 4u], i < 4u);
            }
        }
//#if ALONE
//#else
        workgroupBarrier();
//#endif
    }
}
