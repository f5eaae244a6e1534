// FP8 e4m3.
//#include numbers_bytes W=$W

fn $W_numbers(raw: $W_Raw) -> Numbers {
    let a = raw.first;
    let b = raw.last;
    return Numbers(array(
        e4m3(bytes(a.x)), e4m3(bytes(a.y)), e4m3(bytes(a.z)), e4m3(bytes(a.w)),
        e4m3(bytes(b.x)), e4m3(bytes(b.y)), e4m3(bytes(b.z)), e4m3(bytes(b.w)),
    ));
}
