// FP4 e2m1.
fn $W_numbers(at: u32, g: u32) -> Numbers {
    let raw = $W_quad(at + g);
    let octs = array(bits4(raw.x), bits4(raw.y), bits4(raw.z), bits4(raw.w));
    return Numbers(array(
        e2m1(octs[0].lo), e2m1(octs[0].hi), e2m1(octs[1].lo), e2m1(octs[1].hi),
        e2m1(octs[2].lo), e2m1(octs[2].hi), e2m1(octs[3].lo), e2m1(octs[3].hi),
    ));
}
