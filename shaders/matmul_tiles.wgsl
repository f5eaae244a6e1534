// Matrix product for many rows (prefill): a workgroup makes a tile of BM rows x BN outputs, each
// invocation TM x TN of them; tiles of x and w pass through workgroup memory in pieces of 16 along k.
// Flags and formula: lib/matmul.wgsl. Grid: (output tiles, row tiles, groups).

override BM: u32 = 32u;
override BN: u32 = 32u;
override TM: u32 = 4u;
override TN: u32 = 4u;
//#include matmul
//#include gated
//#include matmul_f32
const WIDTH: u32 = BN / TN;
const WG: u32 = WIDTH * (BM / TM);
// vec4s along k in a tile, and one more between rows, so that rows fall into different banks.
const KV: u32 = 4u;
const PITCH: u32 = KV + 1u;

const BLOCK: u32 = BM;
//#include block_of
//#if GATED
@group(0) @binding(9) var<storage, read> w3: array<vec4<u32>>;  // as w
//#include weight W=w3
//#endif

var<workgroup> x_tile: array<vec4<f32>, BM * PITCH>;
var<workgroup> w_tile: array<vec4<f32>, BN * PITCH>;
//#if GATED
var<workgroup> w3_tile: array<vec4<f32>, BN * PITCH>;
//#endif

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let b = block_of(ids.group);
    if b.outputs == 0u {
        return;
    }
    let block = ids.group.x * BN;
    let tm = ids.lane / WIDTH;
    let tn = ids.lane % WIDTH;

    var acc: array<f32, TM * TN>;
//#if GATED
    var acc3: array<f32, TM * TN>;
//#endif
    for (var i = 0u; i < TM * TN; i++) {
        acc[i] = 0.0;
//#if GATED
        acc3[i] = 0.0;
//#endif
    }
    for (var o = 0u; o < params.oct; o += 2u) {
        for (var i = ids.lane; i < BM * 2u; i += WG) {
            let m = i / 2u;
            let at = o + i % 2u;
            var v = Oct(vec4(0.0), vec4(0.0));
            if m < b.rows && at < params.oct {
                v = x_oct(x_row(b.row0 + m) * params.x_cols + b.x_at, at * 8u);
            }
            let to = m * PITCH + i % 2u * 2u;
            x_tile[to] = v.lo;
            x_tile[to + 1u] = v.hi;
        }
        for (var i = ids.lane; i < BN * 2u; i += WG) {
            let n = i / 2u;
            let at = o + i % 2u;
            var v = Oct(vec4(0.0), vec4(0.0));
//#if GATED
            var v3 = Oct(vec4(0.0), vec4(0.0));
//#endif
            if block + n < b.outputs && at < params.oct {
                let weight_at = (b.weight_row + block + n) * params.pitch;
                v = w_oct(weight_at, at);
//#if GATED
                v3 = w3_oct(weight_at, at);
//#endif
            }
            let to = n * PITCH + i % 2u * 2u;
            w_tile[to] = v.lo;
            w_tile[to + 1u] = v.hi;
//#if GATED
            w3_tile[to] = v3.lo;
            w3_tile[to + 1u] = v3.hi;
//#endif
        }
        workgroupBarrier();
        for (var k = 0u; k < KV; k += step.one) {
            // Rows and outputs of an invocation lie WIDTH apart: neighbours read neighbours.
            var xs: array<vec4<f32>, TM>;
            for (var i = 0u; i < TM; i++) {
                xs[i] = x_tile[(tm + i * (BM / TM)) * PITCH + k];
            }
            for (var j = 0u; j < TN; j++) {
                let v = w_tile[(tn + j * WIDTH) * PITCH + k];
                for (var i = 0u; i < TM; i++) {
                    acc[i * TN + j] += dot(xs[i], v);
                }
//#if GATED
                let v3 = w3_tile[(tn + j * WIDTH) * PITCH + k];
                for (var i = 0u; i < TM; i++) {
                    acc3[i * TN + j] += dot(xs[i], v3);
                }
//#endif
            }
        }
        workgroupBarrier();
    }
    // A row at a time, chosen by selection: the stores and what goes with them, once for each, would
    // be most of the kernel.
    for (var i = 0u; i < TM; i += step.one) {
        let m = tm + i * (BM / TM);
        if m >= b.rows {
            break;
        }
        var sums: array<f32, TN>;
//#if GATED
        var ups: array<f32, TN>;
//#endif
        for (var r = 0u; r < TM; r++) {
            for (var j = 0u; j < TN; j++) {
                sums[j] = select(sums[j], acc[r * TN + j], r == i);
//#if GATED
                ups[j] = select(ups[j], acc3[r * TN + j], r == i);
//#endif
            }
        }
        let row = y_row(b.row0 + m);
        for (var j = 0u; j < TN; j++) {
            let n = block + tn + j * WIDTH;
            if n >= b.outputs {
                break;
            }
            var sum = sums[j];
//#if GATED
            sum = gated(sum, ups[j], weights[row]);
//#endif
            put(row, b.y_at + n, sum);
        }
    }
}
