//! `traceparent` (W3C Trace Context, level 1): read from a request, or new. Pure.

/// The length of a version 00 `traceparent`.
const VALUE_LEN: usize = 55;
const ID_AT: usize = 3;
const PARENT_AT: usize = 36;

/// A trace: the part of the value that stays the same at every hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trace {
    id: [u8; 32],
}

impl Trace {
    /// 32 hexadecimal digits in lower case.
    pub(crate) fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// Reads a header's value. `None` if it is malformed: then a new trace must be started.
    pub(crate) fn read(value: &[u8]) -> Option<Trace> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let fields: [&[u8]; 4] =
            [value.get(0..2)?, value.get(3..35)?, value.get(36..52)?, value.get(53..55)?];
        let dashed = value[2] == b'-' && value[35] == b'-' && value[52] == b'-';
        let well_formed = dashed && fields.iter().all(|field| field.iter().all(|b| hex(*b)));
        let version_fits = match fields[0] {
            b"ff" => false,
            b"00" => value.len() == 55,
            _ => value.len() == 55 || value[55] == b'-',
        };
        let is_zero = |field: &[u8]| field.iter().all(|b| *b == b'0');
        if !well_formed || !version_fits || is_zero(fields[1]) || is_zero(fields[2]) {
            return None;
        }
        Some(Trace { id: fields[1].try_into().ok()? })
    }

    pub(crate) fn start(random: u128) -> Trace {
        let mut id = [b'0'; 32];
        write_hex(&mut id, &random.max(1).to_be_bytes());
        Trace { id }
    }

    /// The header's value for a request in this trace. `parent` is a random number. The proxy records nothing, so it does not
    /// claim that a trace is sampled: whether to sample is left to the service.
    pub(crate) fn value(&self, parent: u64) -> [u8; VALUE_LEN] {
        let mut value = *b"00-00000000000000000000000000000000-0000000000000000-00";
        value[ID_AT..ID_AT + self.id.len()].copy_from_slice(&self.id);
        write_hex(&mut value[PARENT_AT..], &parent.max(1).to_be_bytes());
        value
    }
}

/// `format!` takes ten times as long, and nearly every request needs one.
fn write_hex(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_specifications_example_is_read() {
        let trace = Trace::read(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        assert_eq!(trace.id(), b"4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(Trace::read(b"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more").is_some());
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Trace::read(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_started_trace_reads_back(trace: u128, parent: u64) {
            let started = Trace::start(trace);
            let id = format!("{:032x}", trace.max(1));
            prop_assert_eq!(started.id().as_slice(), id.as_bytes());
            let value = started.value(parent);
            prop_assert_eq!(std::str::from_utf8(&value).unwrap(), format!("00-{id}-{:016x}-00", parent.max(1)));
            prop_assert_eq!(Trace::read(&value), Some(started));
        }

        #[test]
        fn any_bytes_are_read_without_panic(value: Vec<u8>) {
            let _ = Trace::read(&value);
        }
    }
}
