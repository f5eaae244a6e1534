// Q5_K: the codes themselves.
const $W_meant_shifted: bool = $W_shifted;

fn $W_packed(at: u32, g: u32) -> Packed {
    return packed_join(packed4($W_quad(at + g)), packed1($W_u32(at, params.plane1, g)), 4u);
}

fn $W_meant(s: Scale) -> Scale {
    return s;
}
