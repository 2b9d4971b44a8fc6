//! Checks a log (WAL) before RocksDB replays it.
//!
//! RocksDB's strictest mode that still opens after a crash tolerates a record that reaches beyond the
//! end of the file: a torn write. A damaged length or type byte in the middle of the log can look just
//! like that, and all acknowledged writes behind it would be lost in silence. So: after a record that
//! is not whole, no whole one may follow. That is what this checks.
//!
//! The form: blocks of 32 KiB; in them records of a masked CRC-32C (4 bytes), the length of the payload
//! (2), a type (1), the payload. A block's last bytes are unused where no header fits.

const BLOCK: usize = 32 * 1024;
const HEADER: usize = 7;

/// Looks through a whole log.
///
/// # Errors
///
/// Where the first record lies that is not whole although whole ones follow.
pub(super) fn check(log: &[u8]) -> Result<(), usize> {
    let mut damaged = None;
    for (number, block) in log.chunks(BLOCK).enumerate() {
        let begin = number * BLOCK;
        let mut at = 0;
        while let Some(rest) = block.get(at..).filter(|rest| rest.len() >= HEADER) {
            match (record(rest), damaged) {
                (Some(_), Some(offset)) => return Err(offset),
                (Some(len), None) => at += len,
                (None, _) => {
                    let offset = *damaged.get_or_insert(begin + at);
                    let whole_follows =
                        (1..rest.len()).any(|skip| rest.get(skip..).and_then(record).is_some());
                    if whole_follows {
                        return Err(offset);
                    }
                    break;
                }
            }
        }
    }
    Ok(())
}

/// The length with its header of the record at the beginning of `bytes`, if it is whole.
fn record(bytes: &[u8]) -> Option<usize> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
    let [c0, c1, c2, c3, l0, l1, kind] = *header;
    // Types from 1 on; nothing of ours writes more than a few of them. Zeroes are preallocated space.
    if kind == 0 {
        return None;
    }
    let len = usize::from(u16::from_le_bytes([l0, l1]));
    let payload = rest.get(..len)?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload);
    let masked = crc.rotate_right(15).wrapping_add(0xa282_ead8);
    (masked == u32::from_le_bytes([c0, c1, c2, c3])).then_some(HEADER + len)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::*;

    fn log(payloads: &[&[u8]]) -> (Vec<u8>, Vec<usize>) {
        let (mut log, mut starts) = (Vec::new(), Vec::new());
        for payload in payloads {
            starts.push(log.len());
            let crc = crc32c::crc32c_append(crc32c::crc32c(&[1]), payload);
            log.extend(crc.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes());
            log.extend((payload.len() as u16).to_le_bytes());
            log.push(1);
            log.extend(*payload);
        }
        (log, starts)
    }

    #[test]
    fn whole_and_torn_logs_pass() {
        let (whole, _) = log(&[b"one", b"two and a half", b"three"]);
        for end in 0..=whole.len() {
            assert_eq!(check(&whole[..end]), Ok(()), "torn at {end}");
        }
        let zeroes = [whole.as_slice(), &[0; 50]].concat();
        assert_eq!(check(&zeroes), Ok(()));
    }

    #[test]
    fn any_flipped_bit_before_the_last_record_is_found() {
        let (whole, starts) = log(&[b"one", b"two and a half", b"three"]);
        for at in 0..starts[2] {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                let begin = if at < starts[1] { starts[0] } else { starts[1] };
                assert_eq!(check(&flipped), Err(begin), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn damage_is_found_across_blocks() {
        let long = vec![7; BLOCK - HEADER];
        let (whole, starts) = log(&[&long, b"two", b"three"]);
        assert_eq!(starts[1], BLOCK);
        assert_eq!(check(&whole), Ok(()));
        let mut flipped = whole;
        flipped[5] ^= 0x80;
        assert_eq!(check(&flipped), Err(0));
    }
}
