// Activations in 8 bits: 32 columns of a row, which share a scale. See src/ops/quantize_activations.rs.
// Flag BYTES: their codes in the order of weights that are whole bytes.
//#include packed

// Adds to a float's exponent.
fn scaled(v: f32, exponent: i32) -> f32 {
    return bitcast<f32>(bitcast<i32>(v) + exponent * 0x800000);
}

// What a code of 1 means for a group whose largest magnitude has the bits `top`; and the inverse.
// Made of exact steps, so that every device has the same. 0 if the numbers are all near 0 or one of
// them is none.
fn scale_of(top: u32) -> vec2<f32> {
    let exponent = i32(top >> 23u);
    if exponent == 255 {
        return vec2(bitcast<f32>(top), 0.0);
    }
    if exponent < 20 {
        return vec2(0.0);
    }
    // The largest magnitude is less than most * 2^(exponent - 142), if by so little that it is still
    // rounded to 127.
    let most = ((top >> 8u) & 0x7fffu) + 0x8001u;
    let inverse = scaled(f32((127u << 24u) / most), 118 - exponent);
    return vec2(bitcast<f32>(top) * (1.0 / 127.0), inverse);
}

fn sum(codes: vec4<i32>) -> i32 {
    return codes.x + codes.y + codes.z + codes.w;
}

fn eight_bits(v: array<vec4<f32>, 8>) -> Activations {
    var top = vec4(0u);
    for (var i = 0u; i < 8u; i++) {
        top = max(top, bitcast<vec4<u32>>(v[i]) & vec4(0x7fffffffu));
    }
    let scale = scale_of(max(max(top.x, top.y), max(top.z, top.w)));
    var codes: array<vec4<i32>, 8>;
    for (var i = 0u; i < 8u; i++) {
        codes[i] = vec4<i32>(round(v[i] * scale.y));
    }
    var out: Activations;
    for (var i = 0u; i < 4u; i++) {
//#if BYTES
        out.codes.even[i] = pack4xI8(codes[i]);
        out.codes.odd[i] = pack4xI8(codes[i + 4u]);
//#else
        let lo = codes[2u * i];
        let hi = codes[2u * i + 1u];
        out.codes.even[i] = pack4xI8(vec4(lo.xz, hi.xz));
        out.codes.odd[i] = pack4xI8(vec4(lo.yw, hi.yw));
//#endif
    }
    out.scale = bitcast<u32>(scale.x);
    out.first = bitcast<u32>(scale.x * f32(sum(codes[0] + codes[1] + codes[2] + codes[3])));
    out.last = bitcast<u32>(scale.x * f32(sum(codes[4] + codes[5] + codes[6] + codes[7])));
    out.spare = 0u;
    return out;
}
