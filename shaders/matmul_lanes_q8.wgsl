// Matrix product for many rows of activations in 8 bits, where loads are dear, as on software
// adapters, whose lanes load one after the other. An invocation makes one output of ROWS rows, LANES at
// a time; each lane of a subgroup loads and decodes one row of x and shows it to the others. Products of
// codes are added up as floats, of which such adapters multiply more at a time than of integers; the
// sums are the same, being integers below 2^24. Flags and formula: lib/matmul.wgsl.
// Grid: (output blocks, row blocks, groups).

override WG: u32 = 64u;
// Lanes of a subgroup.
override LANES: u32 = 8u;
// Rows a workgroup serves.
override ROWS: u32 = 8u;
//#include matmul
//#include matmul_q8
//#include numbers

//#if EXPERTS
//#include expert_tile
//#if GATED
@group(0) @binding(8) var<storage, read> weights: array<f32>;  // [slots]
@group(0) @binding(9) var<storage, read> w3: array<vec4<u32>>;  // as w
//#include weight_q8 W=w3
//#endif
//#endif

fn numbers(p: Packed) -> Numbers {
    return Numbers(array(
        signed_bytes(p.even.x), signed_bytes(p.odd.x), signed_bytes(p.even.y), signed_bytes(p.odd.y),
        signed_bytes(p.even.z), signed_bytes(p.odd.z), signed_bytes(p.even.w), signed_bytes(p.odd.w),
    ));
}

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let group = params.group + ids.group.z;
//#if EXPERTS
    if ids.group.y >= tiles[0].expert {
        return;
    }
    let tile = tiles[ids.group.y + 1u];
    let page = pages[tile.expert];
    if page < params.first || page >= params.first + params.count {
        return;
    }
    let rows = tile.count;
    let weight_row = (page - params.first) * params.n;
    let outputs = params.n;
    let first = 0u;
//#else
    let row0 = ids.group.y * ROWS;
    let rows = y_rows() - row0;
    let weight_row = ids.group.z * params.w_step + params.w_at;
    let outputs = params.count;
    let first = params.first;
//#endif
    let x_at = group * params.x_step + params.x_at;
    let y_at = group * params.y_step + params.y_at + first;
    let n = ids.group.x * WG + ids.lane;
    // Beyond the last, outputs and rows are made again, and dropped.
    let at = (weight_row + min(n, outputs - 1u)) * params.pitch;
    for (var b = 0u; b < min(rows, ROWS); b += LANES) {
        let m = min(b + ids.sublane, rows - 1u);
//#if EXPERTS
        let begin = sorted[tile.first + m] / params.share * params.x_cols + x_at;
//#else
        let begin = (row0 + m) / params.share * params.x_cols + x_at;
//#endif
        var acc: array<f32, LANES>;
//#if GATED
        var acc3: array<f32, LANES>;
//#endif
        for (var r = 0u; r < LANES; r++) {
            acc[r] = 0.0;
//#if GATED
            acc3[r] = 0.0;
//#endif
        }
        for (var g = 0u; g * 4u < params.oct; g++) {
            let v = numbers(w_packed(at, g));
            let s = w_scales(at, g);
//#if GATED
            let v3 = numbers(w3_packed(at, g));
            let s3 = w3_scales(at, g);
//#endif
            let mine = x[begin + g];
            let mine_numbers = numbers(mine.codes);
            let mine_scales = bitcast<vec3<f32>>(vec3(mine.scale, mine.first, mine.last));
            for (var r = 0u; r < LANES; r++) {
                var xs: Numbers;
                for (var i = 0u; i < 8u; i++) {
                    xs.v[i] = subgroupShuffle(mine_numbers.v[i], r);
                }
                let scales = subgroupShuffle(mine_scales, r);
                acc[r] += w_scaled(halves(v, xs), s, scales);
//#if GATED
                acc3[r] += w3_scaled(halves(v3, xs), s3, scales);
//#endif
            }
        }
        for (var r = 0u; r < LANES; r++) {
            if n >= outputs || b + r >= rows {
                continue;
            }
//#if EXPERTS
            let row = sorted[tile.first + b + r];
//#else
            let row = row0 + b + r;
//#endif
            var sum = acc[r];
//#if GATED
            sum = gated(sum, acc3[r], weights[row]);
//#endif
            let col = y_at + n;
//#if BIAS
            sum += bias[col];
//#endif
            let to = row * params.y_cols + col;
//#if RESIDUAL
            sum += residual[to];
//#endif
            y[to] = sum;
        }
    }
}
