// Q3_K: the codes themselves.
const $W_meant_shifted: bool = $W_shifted;

fn $W_packed(at: u32, g: u32) -> Packed {
    let first = $W_u32(at, 0u, 2u * g);
    let last = $W_u32(at, 0u, 2u * g + 1u);
    let low = packed2(vec4(first, first >> 16u, last, last >> 16u));
    return packed_join(low, packed1($W_u32(at, params.plane1, g)), 2u);
}

fn $W_meant(s: Scale) -> Scale {
    return s;
}
