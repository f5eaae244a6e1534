// Q8_0: signed bytes.
fn $W_numbers(at: u32, g: u32) -> Numbers {
    let a = $W_quad(at + 2u * g);
    let b = $W_quad(at + 2u * g + 1u);
    return Numbers(array(
        signed_bytes(a.x), signed_bytes(a.y), signed_bytes(a.z), signed_bytes(a.w),
        signed_bytes(b.x), signed_bytes(b.y), signed_bytes(b.z), signed_bytes(b.w),
    ));
}
