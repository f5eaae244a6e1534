// Q8_0: the codes themselves, bytes in the order of the elements.
const $W_meant_shifted: bool = $W_shifted;

fn $W_packed(at: u32, g: u32) -> Packed {
    return Packed($W_quad(at + 2u * g), $W_quad(at + 2u * g + 1u));
}

fn $W_meant(s: Scale) -> Scale {
    return s;
}
