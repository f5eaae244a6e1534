// Formats of 4 bits.
alias $W_Raw = vec4<u32>;

fn $W_raw(at: u32, g: u32) -> $W_Raw {
    return $W_quad(at + g);
}

fn $W_numbers(raw: $W_Raw) -> Numbers {
    return numbers_of(
        integers(bits4(raw.x)), integers(bits4(raw.y)), integers(bits4(raw.z)), integers(bits4(raw.w)),
    );
}
