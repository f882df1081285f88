//! One measured figure beside those of its peers, and how figures are kept and shown.
//!
//! A ratio above 1 always means that ours is better.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// More is better, such as rows per second.
    More,
    /// Less is better, such as CPU time per request.
    Less,
}

/// One case: ours, its peers, and how they compare.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    pub case: String,
    pub unit: String,
    /// The median of our rounds.
    pub ours: f64,
    /// The medians of the peers' rounds, or a limit, by name.
    pub peers: BTreeMap<String, f64>,
    /// By the peers' names; above 1 ours is better.
    pub ratios: BTreeMap<String, f64>,
}

impl Figure {
    /// Compares the rounds of one case. Without rounds of ours there is no figure.
    pub fn of(
        case: &str,
        unit: &str,
        better: Better,
        ours: &[f64],
        peers: &[(&str, &[f64])],
    ) -> Option<Figure> {
        let ours = median(ours)?;
        let peers: BTreeMap<String, f64> =
            peers.iter().filter_map(|(name, rounds)| Some(((*name).to_owned(), median(rounds)?))).collect();
        let ratio = |peer: f64| match better {
            Better::More => ours / peer,
            Better::Less => peer / ours,
        };
        let ratios = peers.iter().map(|(name, peer)| (name.clone(), ratio(*peer)));
        // JSON has no infinity: a ratio with nothing is left out.
        let ratios =
            ratios.filter(|(_, ratio)| ratio.is_finite()).map(|(name, ratio)| (name, rounded(ratio)));
        let ratios = ratios.collect();
        let peers = peers.into_iter().map(|(name, peer)| (name, rounded(peer))).collect();
        Some(Figure { case: case.to_owned(), unit: unit.to_owned(), ours: rounded(ours), peers, ratios })
    }

    pub fn line(&self) -> String {
        let peers: Vec<String> = self.peers.iter().map(|(name, peer)| self.against(name, *peer)).collect();
        format!("{}: {} {} ({})", self.case, shown(self.ours), self.unit, peers.join(", "))
    }

    fn against(&self, name: &str, peer: f64) -> String {
        let ratio = self.ratios.get(name).map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}×"));
        format!("{name} {} → {ratio}", shown(peer))
    }
}

/// The middle of the values, or the mean of the middle two.
pub fn median(values: &[f64]) -> Option<f64> {
    quantiles(values, &[]).map(|(middle, _)| middle)
}

/// The median, and for each part (0 to 1) the value that so many of the values stay within.
pub fn quantiles(values: &[f64], parts: &[f64]) -> Option<(f64, Vec<f64>)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let upper = *sorted.get(count / 2)?;
    let middle =
        if count.is_multiple_of(2) { f64::midpoint(upper, *sorted.get(count / 2 - 1)?) } else { upper };
    let rank = |part: f64| ((count as f64 * part).ceil() as usize).clamp(1, count) - 1;
    let quantiles = parts.iter().filter_map(|part| sorted.get(rank(*part)).copied()).collect();
    Some((middle, quantiles))
}

/// Six significant digits: more would be noise, and fewer would be rounded twice where they are shown.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let digits = 5 - value.abs().log10().floor() as i32;
    let scale = 10f64.powi(digits.max(0));
    (value * scale).round() / scale
}

/// A number as people read it: thousands apart, no insignificant digits.
pub fn shown(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

/// The figures as a table in Markdown, one line for each peer.
pub fn markdown(figures: &[Figure]) -> String {
    let mut text =
        "| case | unit | ours | against | theirs | ratio |\n|---|---|--:|---|--:|--:|\n".to_owned();
    for figure in figures {
        for (name, peer) in &figure.peers {
            let ratio =
                figure.ratios.get(name).map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}×"));
            let (ours, theirs) = (shown(figure.ours), shown(*peer));
            text +=
                &format!("| {} | {} | {ours} | {name} | {theirs} | {ratio} |\n", figure.case, figure.unit);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kept;

    #[test]
    fn a_ratio_above_one_is_better_whichever_way_is_good() {
        let fast = Figure::of("rows", "rows/s", Better::More, &[200.0], &[("peer", &[100.0])]).unwrap();
        let cheap = Figure::of("cpu", "µs", Better::Less, &[10.0], &[("peer", &[20.0])]).unwrap();
        assert_eq!((fast.ratios["peer"], cheap.ratios["peer"]), (2.0, 2.0));
        assert!(Figure::of("none", "s", Better::Less, &[], &[]).is_none());
    }

    #[test]
    fn one_odd_round_does_not_move_the_median() {
        assert_eq!(median(&[1.0, 900.0, 2.0]), Some(2.0));
        assert_eq!(median(&[1.0, 2.0]), Some(1.5));
        assert_eq!(median(&[]), None);
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantiles(&values, &[0.5, 0.99, 1.0]).unwrap().1, [50.0, 99.0, 100.0]);
    }

    #[test]
    fn figures_survive_their_file_and_fill_a_table() {
        let figure =
            Figure::of("copy", "rows/s", Better::More, &[123_456.7], &[("pipe", &[100_000.0])]).unwrap();
        let path = std::env::temp_dir().join(format!("strangler-figures-{}.json", std::process::id()));
        kept::write(&path, std::slice::from_ref(&figure)).unwrap();
        assert_eq!(kept::read::<Vec<Figure>>(&path).unwrap(), std::slice::from_ref(&figure));
        std::fs::remove_file(path).unwrap();
        let table = markdown(std::slice::from_ref(&figure));
        assert!(
            table.ends_with("| copy | rows/s | 123\u{202f}457 | pipe | 100\u{202f}000 | 1.23× |\n"),
            "{table}"
        );
    }

    #[test]
    fn a_limit_of_zero_gives_no_ratio() {
        let figure = Figure::of("x", "ms", Better::Less, &[0.0], &[("limit", &[10.0])]).unwrap();
        assert!(figure.ratios.is_empty());
    }
}
