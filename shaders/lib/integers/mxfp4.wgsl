// MXFP4: twice the number, which is an integer up to 12, and 12 more.
const $W_meant_shifted: bool = true;

fn $W_packed(at: u32, g: u32) -> Packed {
    let codes = packed4($W_quad(at + g));
    return Packed(e2m1_twice(codes.even), e2m1_twice(codes.odd));
}

fn $W_meant(s: Scale) -> Scale {
    return Scale(0.5 * s.scale, -6.0 * s.scale);
}
