//! A small cookie jar for one host: names and values.

use std::collections::BTreeMap;

/// The most cookies that are kept. Further ones are dropped.
const COOKIES_MAX: usize = 32;

#[derive(Clone, Debug, Default)]
pub struct Jar(BTreeMap<String, String>);

impl Jar {
    /// Applies one `Set-Cookie` header. An empty value or `Max-Age=0` removes the cookie.
    pub fn set(&mut self, header: &str) {
        let mut parts = header.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { return };
        let expired = parts.any(|attribute| attribute.eq_ignore_ascii_case("max-age=0"));
        if value.is_empty() || expired {
            self.0.remove(name);
        } else if self.0.len() < COOKIES_MAX || self.0.contains_key(name) {
            self.0.insert(name.to_owned(), value.to_owned());
        }
    }

    #[must_use]
    pub fn header(&self) -> Option<String> {
        let pairs: Vec<String> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::Jar;

    #[test]
    fn cookies_come_back_until_they_expire() {
        let mut jar = Jar::default();
        assert_eq!(jar.header(), None);
        jar.set("a=1; Path=/; HttpOnly");
        jar.set("b=x=y");
        assert_eq!(jar.header().as_deref(), Some("a=1; b=x=y"));
        jar.set("a=2");
        jar.set("b=gone; Max-Age=0");
        jar.set("nonsense");
        assert_eq!(jar.header().as_deref(), Some("a=2"));
    }
}
