//! Writes grey pictures as PNG (RFC 2083), stored without compression: no library needed.

use super::Picture;

/// A sheet of square pictures of `side` pixels, `across` in a row, each pixel enlarged `zoom`
/// times, with a black line between pictures.
pub fn sheet(pictures: &[Picture], side: usize, across: usize, zoom: usize) -> Vec<u8> {
    let (across, zoom) = (across.max(1), zoom.max(1));
    let cell = side * zoom + 1;
    let (width, height) = (across * cell + 1, pictures.len().div_ceil(across) * cell + 1);
    let mut pixels = vec![0u8; width * height];
    for (at, picture) in pictures.iter().enumerate() {
        let (top, left) = (at / across * cell + 1, at % across * cell + 1);
        for y in 0..side * zoom {
            for x in 0..side * zoom {
                let byte = picture.bytes.get(y / zoom * side + x / zoom).copied().unwrap_or(0);
                pixels[(top + y) * width + left + x] = byte;
            }
        }
    }
    encode(&pixels, width)
}

/// Encodes 8-bit grey pixels, row by row.
fn encode(pixels: &[u8], width: usize) -> Vec<u8> {
    let rows = pixels.chunks_exact(width);
    let height = rows.len();
    let raw: Vec<u8> = rows.flat_map(|row| std::iter::once(&0).chain(row)).copied().collect();
    let mut header = Vec::with_capacity(13);
    header.extend_from_slice(&(width as u32).to_be_bytes());
    header.extend_from_slice(&(height as u32).to_be_bytes());
    // 8 bits, grey, deflate, one filter method, not interlaced.
    header.extend_from_slice(&[8, 0, 0, 0, 0]);
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut out, b"IHDR", &header);
    chunk(&mut out, b"IDAT", &stored(&raw));
    chunk(&mut out, b"IEND", &[]);
    out
}

fn chunk(out: &mut Vec<u8>, name: &[u8; 4], data: &[u8]) {
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    let start = out.len();
    out.extend_from_slice(name);
    out.extend_from_slice(data);
    let sum = crc(&out[start..]);
    out.extend_from_slice(&sum.to_be_bytes());
}

/// A zlib stream (RFC 1950) of stored blocks (RFC 1951).
fn stored(raw: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let blocks = raw.len().div_ceil(65_535).max(1);
    for (at, block) in raw.chunks(65_535).enumerate() {
        let length = block.len() as u16;
        out.push(u8::from(at + 1 == blocks));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    let (a, b) = raw.iter().fold((1u32, 0u32), |(a, b), &byte| {
        let a = (a + u32::from(byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    out.extend_from_slice(&(b << 16 | a).to_be_bytes());
    out
}

fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, &byte: &u8| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_the_published_ones() {
        assert_eq!(crc(b"IEND"), 0xAE42_6082);
        assert_eq!(stored(b"Wikipedia")[16..], 0x11E6_0398u32.to_be_bytes());
    }

    #[test]
    fn a_sheet_has_the_size_it_says() {
        let pictures = vec![Picture { bytes: vec![255; 64] }; 5];
        let png = sheet(&pictures, 8, 3, 2);
        assert_eq!(png[16..24], [0, 0, 0, 52, 0, 0, 0, 35]);
        // Signature, three chunks of 12 more bytes, header, zlib's frame, rows with a filter byte.
        assert_eq!(png.len(), 8 + 3 * 12 + 13 + (2 + 5 + 4) + 35 * 53);
        assert_eq!(png.iter().filter(|&&byte| byte == 255).count() / (5 * 256), 1);
    }
}
