// Codes that are their numbers over $TIMES, by which x is multiplied instead.
fn $W_fit(x: Numbers) -> Numbers {
    return Numbers(array(
        x.v[0] * $TIMES, x.v[1] * $TIMES, x.v[2] * $TIMES, x.v[3] * $TIMES,
        x.v[4] * $TIMES, x.v[5] * $TIMES, x.v[6] * $TIMES, x.v[7] * $TIMES,
    ));
}
