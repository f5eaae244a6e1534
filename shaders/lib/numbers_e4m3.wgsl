// FP8 e4m3.
fn $W_numbers(at: u32, g: u32) -> Numbers {
    let a = $W_quad(at + 2u * g);
    let b = $W_quad(at + 2u * g + 1u);
    return Numbers(array(
        e4m3(bytes(a.x)), e4m3(bytes(a.y)), e4m3(bytes(a.z)), e4m3(bytes(a.w)),
        e4m3(bytes(b.x)), e4m3(bytes(b.y)), e4m3(bytes(b.z)), e4m3(bytes(b.w)),
    ));
}
