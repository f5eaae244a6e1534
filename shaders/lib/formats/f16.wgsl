// F16.
//#include scales_apart W=$W
const $W_group: u32 = 1u;
const $W_shifted: bool = false;

fn $W_codes(at: u32, o: u32) -> Oct {
    let raw = $W_quad(at + o);
    return Oct(
        vec4(unpack2x16float(raw.x), unpack2x16float(raw.y)),
        vec4(unpack2x16float(raw.z), unpack2x16float(raw.w)),
    );
}

fn $W_scale(at: u32, g: u32) -> Scale {
    return Scale(1.0, 0.0);
}
