// Formats of 4 bits that $MEANING makes numbers.
const $W_middle: f32 = 0.0;
const $W_minimum: bool = false;

alias $W_Raw = vec4<u32>;

fn $W_raw(at: u32, g: u32) -> $W_Raw {
    return $W_quad(at + g);
}

fn $W_two_raws(at: u32, g: u32) -> $W_TwoRaws {
    let raws = $W_quads(at + g);
    return $W_TwoRaws(raws.first, raws.last);
}

fn $W_numbers(raw: $W_Raw) -> Numbers {
    let octs = array(bits4(raw.x), bits4(raw.y), bits4(raw.z), bits4(raw.w));
    return Numbers(array(
        $MEANING(octs[0].lo), $MEANING(octs[0].hi), $MEANING(octs[1].lo), $MEANING(octs[1].hi),
        $MEANING(octs[2].lo), $MEANING(octs[2].hi), $MEANING(octs[3].lo), $MEANING(octs[3].hi),
    ));
}
