// Codes of which a quad holds 32.
alias $W_Raw = vec4<u32>;

fn $W_raw(at: u32, g: u32) -> $W_Raw {
    return $W_quad(at + g);
}

fn $W_two_raws(at: u32, g: u32) -> $W_TwoRaws {
    let raws = $W_quads(at + g);
    return $W_TwoRaws(raws.first, raws.last);
}
