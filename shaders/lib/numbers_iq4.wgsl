// Formats of 4-bit places in a table.
fn $W_numbers(at: u32, g: u32) -> Numbers {
    let raw = $W_quad(at + g);
    let octs = array(bits4(raw.x), bits4(raw.y), bits4(raw.z), bits4(raw.w));
    return Numbers(array(
        iq4(octs[0].lo), iq4(octs[0].hi), iq4(octs[1].lo), iq4(octs[1].hi),
        iq4(octs[2].lo), iq4(octs[2].hi), iq4(octs[3].lo), iq4(octs[3].hi),
    ));
}
