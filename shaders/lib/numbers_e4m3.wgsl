// FP8 e4m3.
//#include numbers_bytes W=$W
//#include fit_times W=$W TIMES=0x1p8
//#include halves

fn $W_numbers(raw: $W_Raw) -> Numbers {
    let a = raw.first;
    let b = raw.last;
    return Numbers(array(
        e4m3_halves(a.x), e4m3_halves(a.y), e4m3_halves(a.z), e4m3_halves(a.w),
        e4m3_halves(b.x), e4m3_halves(b.y), e4m3_halves(b.z), e4m3_halves(b.w),
    ));
}
