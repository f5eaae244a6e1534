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

fn part_sum(s: vec3<f32>, part: u32) -> f32 {
    return select(s.y + s.z, select(s.z, s.y, part == 0u), w_halves);
}

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
    for (var g = 0u; g * 4u < params.oct; g++) {
        for (var m = ids.lane; m < BM; m += WG) {
            var v: Activations;
            if m < b.rows {
                v = x[x_row(b.row0 + m) * params.x_cols + b.x_at + g];
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
            var dots: array<i32, TM * TN>;
//#if GATED
            var dots3: array<i32, TM * TN>;
//#endif
            for (var i = 0u; i < TM * TN; i++) {
                dots[i] = 0;
//#if GATED
                dots3[i] = 0;
//#endif
            }
            for (var o = p * 2u; o < p * 2u + 4u / PARTS; o += step.one) {
                var xs: array<vec2<u32>, TM>;
                for (var i = 0u; i < TM; i++) {
                    xs[i] = x_tile[(tm + i * (BM / TM)) * PITCH + o];
                }
                for (var j = 0u; j < TN; j++) {
                    let v = w_tile[(tn + j * WIDTH) * PITCH + o];
                    for (var i = 0u; i < TM; i++) {
                        dots[i * TN + j] +=
                            dot4I8Packed(xs[i].x, v.x) + dot4I8Packed(xs[i].y, v.y);
                    }
//#if GATED
                    let v3 = w3_tile[(tn + j * WIDTH) * PITCH + o];
                    for (var i = 0u; i < TM; i++) {
                        dots3[i * TN + j] +=
                            dot4I8Packed(xs[i].x, v3.x) + dot4I8Packed(xs[i].y, v3.y);
                    }
//#endif
                }
            }
            var xs: array<vec2<f32>, TM>;
            for (var i = 0u; i < TM; i++) {
                let s = x_scale[tm + i * (BM / TM)];
                xs[i] = vec2(s.x, part_sum(s, p));
            }
            for (var j = 0u; j < TN; j++) {
                let s = w_part(w_scale_tile[tn + j * WIDTH], p);
                for (var i = 0u; i < TM; i++) {
                    acc[i * TN + j] += s.scale * xs[i].x * f32(dots[i * TN + j]);
                    if w_meant_shifted {
                        acc[i * TN + j] += s.shift * xs[i].y;
                    }
                }
//#if GATED
                let s3 = w3_part(w3_scale_tile[tn + j * WIDTH], p);
                for (var i = 0u; i < TM; i++) {
                    acc3[i * TN + j] += s3.scale * xs[i].x * f32(dots3[i * TN + j]);
                    if w_meant_shifted {
                        acc3[i * TN + j] += s3.shift * xs[i].y;
                    }
                }
//#endif
            }
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < TM; i++) {
        let m = tm + i * (BM / TM);
        if m >= b.rows {
            continue;
        }
        let row = y_row(b.row0 + m);
        for (var j = 0u; j < TN; j++) {
            let n = block + tn + j * WIDTH;
            if n >= b.outputs {
                continue;
            }
            var sum = acc[i * TN + j];
//#if GATED
            sum = gated(sum, acc3[i * TN + j], weights[row]);
//#endif
            put(row, b.y_at + n, sum);
        }
    }
}
