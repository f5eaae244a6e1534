// Q4_0: the codes themselves.
const $W_meant_shifted: bool = $W_shifted;

fn $W_packed(at: u32, g: u32) -> Packed {
    return packed4($W_quad(at + g));
}

fn $W_meant(s: Scale) -> Scale {
    return s;
}
