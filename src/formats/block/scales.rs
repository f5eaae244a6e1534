//! The 4- to 8-bit scales of the groups inside a block of 256.

use super::BlockFormat;

/// Reads the groups' scales of a stored block, as a packed row has them.
pub(super) fn read(format: BlockFormat, block: &[u8], groups: &mut [u8; 16]) {
    match format {
        BlockFormat::Q2K => groups.copy_from_slice(&block[..16]),
        BlockFormat::Q6K => groups.copy_from_slice(&block[192..208]),
        BlockFormat::Q3K => q3_k(&block[96..108], groups),
        BlockFormat::Q4K | BlockFormat::Q5K => q4_k(&block[4..16], groups),
        BlockFormat::IQ4XS => iq4_xs(&block[2..8], groups),
        _ => {}
    }
}

/// Writes the groups' scales into a stored block, for the formats that can be made.
pub(super) fn write(format: BlockFormat, groups: &[u8; 16], block: &mut [u8]) {
    match format {
        BlockFormat::Q4K => {
            for i in 0..4 {
                let [scale, min] = [groups[2 * i], groups[2 * i + 1]];
                let [high_scale, high_min] = [groups[2 * i + 8], groups[2 * i + 9]];
                block[4 + i] = scale | high_scale >> 4 << 6;
                block[8 + i] = min | high_min >> 4 << 6;
                block[12 + i] = high_scale & 15 | high_min << 4;
            }
        }
        BlockFormat::Q6K => block[192..208].copy_from_slice(groups),
        _ => {}
    }
}

/// 16 scales of 6 bits: bytes 0..8 have the low four bits of scales 0..8 below those of 8..16, bytes
/// 8..12 the high two of scales 0..4, 4..8, 8..12 and 12..16, from the lowest bits up.
fn q3_k(stored: &[u8], groups: &mut [u8; 16]) {
    for (i, group) in groups.iter_mut().enumerate() {
        let low = stored[i % 8] >> (4 * (i / 8)) & 15;
        let high = stored[8 + i % 4] >> (2 * (i / 4)) & 3;
        *group = (low | high << 4).wrapping_sub(32);
    }
}

/// 8 scales and 8 minima of 6 bits, to (scale, minimum) pairs. Bytes 0..4 have the scales of groups
/// 0..4 and bytes 4..8 their minima, in six bits; of groups 4..8 the top two bits are above those,
/// and the low four are in bytes 8..12, the minimum's above the scale's.
fn q4_k(stored: &[u8], groups: &mut [u8; 16]) {
    for i in 0..4 {
        let (scale, min, rest) = (stored[i], stored[4 + i], stored[8 + i]);
        groups[2 * i] = scale & 63;
        groups[2 * i + 1] = min & 63;
        groups[2 * i + 8] = rest & 15 | scale >> 6 << 4;
        groups[2 * i + 9] = rest >> 4 | min >> 6 << 4;
    }
}

/// 8 scales of 6 bits: the high two in bytes 0..2, the low four in bytes 2..6, each in order.
fn iq4_xs(stored: &[u8], groups: &mut [u8; 16]) {
    for (i, group) in groups[..8].iter_mut().enumerate() {
        let high = stored[i / 4] >> (2 * (i % 4)) & 3;
        let low = stored[2 + i / 2] >> (4 * (i % 2)) & 15;
        *group = (low | high << 4).wrapping_sub(32);
    }
}
