// Formats of 4 bits that $MEANING makes numbers.
//#include fit_none W=$W
const $W_middle: f32 = 0.0;
const $W_minimum: bool = false;
//#include raws_quad W=$W

fn $W_numbers(raw: $W_Raw) -> Numbers {
    let octs = array(bits4(raw.x), bits4(raw.y), bits4(raw.z), bits4(raw.w));
    return Numbers(array(
        $MEANING(octs[0].lo), $MEANING(octs[0].hi), $MEANING(octs[1].lo), $MEANING(octs[1].hi),
        $MEANING(octs[2].lo), $MEANING(octs[2].hi), $MEANING(octs[3].lo), $MEANING(octs[3].hi),
    ));
}
