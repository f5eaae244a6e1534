// Formats of 8 bits.
const $W_middle: f32 = 0.0;
const $W_minimum: bool = false;

alias $W_Raw = Quads;

fn $W_raw(at: u32, g: u32) -> $W_Raw {
    return $W_quads(at + 2u * g);
}
//#include raws_apart W=$W
