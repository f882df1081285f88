//! An IP address as text, in headers and the access log.
//!
//! Every request writes one. `Display` and a `String` each cost more than writing the text.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::io::Write;

/// The longest is an IPv4 address in IPv6 notation, `0000:0000:0000:0000:0000:ffff:255.255.255.255`.
const LEN_MAX: usize = 45;

/// Reads an address as load balancers write it: alone, in brackets, or with a port.
pub(crate) fn read(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(with_port).or_else(|| bracketed().map(IpAddr::V6))
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct AddressText {
    text: [u8; LEN_MAX],
    len: usize,
}

impl AddressText {
    pub(crate) fn of(address: IpAddr) -> Self {
        let mut text = [0; LEN_MAX];
        let len = match address {
            IpAddr::V4(address) => {
                let [first, rest @ ..] = address.octets();
                rest.iter().fold(write_octet(&mut text, 0, first), |at, octet| {
                    text[at] = b'.';
                    write_octet(&mut text, at + 1, *octet)
                })
            }
            IpAddr::V6(address) => {
                let mut rest = &mut text[..];
                // It cannot fail: every address fits.
                let _ = write!(rest, "{address}");
                LEN_MAX - rest.len()
            }
        };
        Self { text, len }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

/// Writes an octet in decimal. Returns where it ends.
fn write_octet(text: &mut [u8; LEN_MAX], mut at: usize, octet: u8) -> usize {
    for (limit, digit) in [(100, octet / 100), (10, octet / 10 % 10), (0, octet % 10)] {
        if octet >= limit {
            text[at] = b'0' + digit;
            at += 1;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_what_display_writes(short: u32, long: u128, mapped: u32) {
            let mapped = Ipv4Addr::from_bits(mapped).to_ipv6_mapped();
            let addresses: [IpAddr; 3] =
                [Ipv4Addr::from_bits(short).into(), Ipv6Addr::from_bits(long).into(), mapped.into()];
            for address in addresses {
                let text = AddressText::of(address);
                prop_assert_eq!(text.as_bytes().to_vec(), address.to_string().into_bytes());
            }
        }
    }

    #[test]
    fn an_address_is_read_with_and_without_a_port() {
        for (text, address) in [
            ("192.0.2.1", "192.0.2.1"),
            (" 192.0.2.1:5678 ", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[::1]:99", "::1"),
        ] {
            assert_eq!(read(text.as_bytes()), address.parse().ok(), "{text}");
        }
        for other in
            ["", "unknown", "_hidden", "192.0.2.1:", "192.0.2.1:x", "[192.0.2.1]", "[::1", "192.0.2.1:99999"]
        {
            assert_eq!(read(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn octets_have_no_leading_zeros() {
        for (octets, text) in [([0, 9, 10, 99], "0.9.10.99"), ([100, 101, 200, 255], "100.101.200.255")] {
            assert_eq!(AddressText::of(IpAddr::from(octets)).as_bytes(), text.as_bytes());
        }
    }
}
