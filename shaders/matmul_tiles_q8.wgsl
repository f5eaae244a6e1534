// Matrix product for many rows (prefill) of activations in 8 bits: a workgroup makes a tile of BM rows
// x BN outputs, each invocation TM x TN of them; tiles of x and w pass through workgroup memory in
// pieces of 32 along k.
// Flags and formula: lib/matmul.wgsl. Grid: (output tiles, row tiles, groups).

override BM: u32 = 32u;
override BN: u32 = 32u;
override TM: u32 = 4u;
override TN: u32 = 4u;
//#include matmul
//#include gated
//#include matmul_q8
const WIDTH: u32 = BN / TN;
const WG: u32 = WIDTH * (BM / TM);
// Octs along k in a tile, and one more between rows, so that rows fall into different banks.
const PITCH: u32 = 5u;
// Parts of these with a Scale each.
const PARTS: u32 = select(1u, 2u, w_halves);

const BLOCK: u32 = BM;
//#include block_of
//#if GATED
@group(0) @binding(9) var<storage, read> w3: array<vec4<u32>>;  // as w
//#include weight_q8 W=w3
//#endif

// The codes of an Oct: of its even and of its odd elements.
var<workgroup> x_tile: array<vec2<u32>, BM * PITCH>;
// The scale of 32 elements, and the sums of either half.
var<workgroup> x_scale: array<vec3<f32>, BM>;
var<workgroup> w_tile: array<vec2<u32>, BN * PITCH>;
var<workgroup> w_scale_tile: array<w_Scales, BN>;
//#if GATED
var<workgroup> w3_tile: array<vec2<u32>, BN * PITCH>;
var<workgroup> w3_scale_tile: array<w3_Scales, BN>;
//#endif

// What codes with scale `x` and sum `sum` come to with those of a weight.
fn scaled(w: Scale, dot: i32, x: f32, sum: f32) -> f32 {
    let scaled = w.scale * x * f32(dot);
    return select(scaled, scaled + w.shift * sum, w_meant_shifted);
}

fn dot8(x: vec2<u32>, w: vec2<u32>) -> i32 {
    return dot4I8Packed(x.x, w.x) + dot4I8Packed(x.y, w.y);
}

fn part_sum(s: vec3<f32>, part: u32) -> f32 {
    return select(s.y + s.z, select(s.z, s.y, part == 0u), w_halves);
}

@compute @workgroup_size(WG)
fn main(ids: Ids) {
//#include tile_begin
    for (var g = 0u; g * 4u < params.oct; g++) {
        for (var m = ids.lane; m < BM; m += WG) {
            var v: Activations;
            if m < b.rows {
                v = x[x_begin(b, m) + g];
            }
            for (var o = 0u; o < 4u; o++) {
                x_tile[m * PITCH + o] = vec2(v.codes.even[o], v.codes.odd[o]);
            }
            x_scale[m] = bitcast<vec3<f32>>(vec3(v.scale, v.first, v.last));
        }
        for (var n = ids.lane; n < BN; n += WG) {
            // Beyond the last output a row is read again, and what comes of it is dropped.
            let at = (b.weight_row + min(block + n, b.outputs - 1u)) * params.pitch;
            let v = w_packed(at, g);
            for (var o = 0u; o < 4u; o++) {
                w_tile[n * PITCH + o] = vec2(v.even[o], v.odd[o]);
            }
            w_scale_tile[n] = w_scales(at, g);
//#if GATED
            let v3 = w3_packed(at, g);
            for (var o = 0u; o < 4u; o++) {
                w3_tile[n * PITCH + o] = vec2(v3.even[o], v3.odd[o]);
            }
            w3_scale_tile[n] = w3_scales(at, g);
//#endif
        }
        workgroupBarrier();
        for (var p = 0u; p < PARTS; p += step.one) {
            // Rows and outputs of an invocation lie WIDTH apart: neighbours read neighbours.
//#each I TM
//#each J TN
            var dots_$I_$J = 0i;
//#if GATED
            var dots3_$I_$J = 0i;
//#endif
//#end
//#end
            for (var o = p * 2u; o < p * 2u + 4u / PARTS; o += step.one) {
//#each I TM
                let x_$I = x_tile[(tm + $Iu * (BM / TM)) * PITCH + o];
//#end
//#each J TN
                let w_$J = w_tile[(tn + $Ju * WIDTH) * PITCH + o];
//#if GATED
                let w3_$J = w3_tile[(tn + $Ju * WIDTH) * PITCH + o];
//#endif
//#each I TM
                dots_$I_$J += dot8(x_$I, w_$J);
//#if GATED
                dots3_$I_$J += dot8(x_$I, w3_$J);
//#endif
//#end
//#end
            }
//#each I TM
            let s_$I = x_scale[tm + $Iu * (BM / TM)];
            let sum_$I = part_sum(s_$I, p);
//#end
//#each J TN
            let part_$J = w_part(w_scale_tile[tn + $Ju * WIDTH], p);
//#if GATED
            let part3_$J = w3_part(w3_scale_tile[tn + $Ju * WIDTH], p);
//#endif
//#each I TM
            acc_$I_$J += scaled(part_$J, dots_$I_$J, s_$I.x, sum_$I);
//#if GATED
            acc3_$I_$J += scaled(part3_$J, dots3_$I_$J, s_$I.x, sum_$I);
//#endif
//#end
//#end
        }
        workgroupBarrier();
    }
//#include tile_end
}
