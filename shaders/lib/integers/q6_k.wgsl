// Q6_K: the codes themselves.
const $W_meant_shifted: bool = $W_shifted;

fn $W_packed(at: u32, g: u32) -> Packed {
    let first = $W_u32(at, params.plane1, 2u * g);
    let last = $W_u32(at, params.plane1, 2u * g + 1u);
    let high = packed2(vec4(first, first >> 16u, last, last >> 16u));
    return packed_join(packed4($W_quad(at + g)), high, 4u);
}

fn $W_meant(s: Scale) -> Scale {
    return s;
}
