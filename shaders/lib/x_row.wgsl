// The row of x that a row of y is made from.
fn x_row(y_row: u32) -> u32 {
//#if EXPERTS
    return y_row / params.share;
//#else
    return y_row;
//#endif
}
