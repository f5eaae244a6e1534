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
//#include tile_begin
    for (var o = 0u; o < params.oct; o += 2u) {
        for (var i = ids.lane; i < BM * 2u; i += WG) {
            let m = i / 2u;
            let at = o + i % 2u;
            var v = Oct(vec4(0.0), vec4(0.0));
            if m < b.rows && at < params.oct {
                v = x_oct(x_begin(b, m), at * 8u);
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
//#each I TM
            let x_$I = x_tile[(tm + $Iu * (BM / TM)) * PITCH + k];
//#end
//#each J TN
            let w_$J = w_tile[(tn + $Ju * WIDTH) * PITCH + k];
//#if GATED
            let w3_$J = w3_tile[(tn + $Ju * WIDTH) * PITCH + k];
//#endif
//#each I TM
            acc_$I_$J += dot(x_$I, w_$J);
//#if GATED
            acc3_$I_$J += dot(x_$I, w3_$J);
//#endif
//#end
//#end
        }
        workgroupBarrier();
    }
//#include tile_end
}
