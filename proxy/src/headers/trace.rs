//! `traceparent` (W3C Trace Context, level 1): read from a request, or a new one.
//!
//! Pure: random numbers are arguments.

/// A trace's place: the header's value, of which the id is a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    id: [u8; 32],
}

impl Trace {
    /// The trace id, 32 hexadecimal digits.
    pub fn id(&self) -> &str {
        std::str::from_utf8(&self.id).unwrap_or_default()
    }

    /// Reads a header's value; none if it is malformed, and then a new trace must be started.
    pub fn read(value: &[u8]) -> Option<Trace> {
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

    /// Starts a trace, sampled, from random numbers. The header's value is returned with it.
    pub fn start(trace: u128, parent: u64) -> (Trace, String) {
        let value = format!("00-{:032x}-{:016x}-01", trace.max(1), parent.max(1));
        let mut id = [b'0'; 32];
        id.copy_from_slice(&value.as_bytes()[3..35]);
        (Trace { id }, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_specifications_example_is_read() {
        let trace = Trace::read(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        assert_eq!(trace.id(), "4bf92f3577b34da6a3ce929d0e0e4736");
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
            let (started, value) = Trace::start(trace, parent);
            prop_assert_eq!(Trace::read(value.as_bytes()), Some(started));
        }

        #[test]
        fn any_bytes_are_read_without_panic(value: Vec<u8>) {
            let _ = Trace::read(&value);
        }
    }
}
