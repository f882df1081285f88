//! Lanes: one slice in one direction, from a feed's log to a sink.

use crate::names::SliceName;
use crate::stage::Epoch;
use crate::text::{BadText, travels_as_text};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From the monolith to the service.
    Forward,
    /// From the service back to the monolith.
    Reverse,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Direction::Forward => "forward",
            Direction::Reverse => "reverse",
        })
    }
}

/// Names a lane, written `orders/forward`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LaneId {
    pub slice: SliceName,
    pub direction: Direction,
}

impl LaneId {
    pub fn forward(slice: SliceName) -> Self {
        Self { slice, direction: Direction::Forward }
    }

    pub fn reverse(slice: SliceName) -> Self {
        Self { slice, direction: Direction::Reverse }
    }

    /// The lane that brings the slice's rows the other way.
    pub fn opposite(&self) -> Self {
        match self.direction {
            Direction::Forward => Self::reverse(self.slice.clone()),
            Direction::Reverse => Self::forward(self.slice.clone()),
        }
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.slice, self.direction)
    }
}

impl FromStr for LaneId {
    type Err = BadText;
    fn from_str(text: &str) -> Result<Self, BadText> {
        let bad = || BadText::new(text, "is not a lane: write `SLICE/forward` or `SLICE/reverse`", "");
        let (slice, direction) = text.split_once('/').ok_or_else(bad)?;
        let direction = match direction {
            "forward" => Direction::Forward,
            "reverse" => Direction::Reverse,
            _ => return Err(bad()),
        };
        Ok(Self { slice: slice.parse().map_err(|_| bad())?, direction })
    }
}

travels_as_text!(LaneId);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Right {
    /// Change the slice's rows while the sink's gate is shut at this epoch.
    Apply(Epoch),
    /// Change nothing of what the slice owns: read on, and report writes that are not our own. Reference tables are still
    /// applied.
    Watch,
    /// Nothing is captured for it; its place and its slot are given up.
    Rest,
}

/// The echo mark: a lane's first statement in each transaction leaves it in the sink's own change stream, as the content
/// of a logical message with prefix [`Mark::PREFIX`]. Written `orders/forward@3`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mark {
    pub lane: LaneId,
    pub epoch: Epoch,
}

impl Mark {
    pub const PREFIX: &str = "strangler.apply";
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.lane, self.epoch)
    }
}

impl FromStr for Mark {
    type Err = BadText;
    fn from_str(text: &str) -> Result<Self, BadText> {
        let bad = || BadText::new(text, "is not a lane's mark, which reads `SLICE/DIRECTION@EPOCH`", "");
        let (lane, epoch) = at_epoch(text).ok_or_else(bad)?;
        Ok(Self { lane, epoch })
    }
}

/// What a gate leaves in its database's change stream when it is turned, in the same transaction: a logical message. Who
/// has passed one of a shut gate, the *fence*, has everything that was written before. What comes after it and before the
/// gate opens again is no owner's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    pub slice: SliceName,
    pub epoch: Epoch,
    pub is_shut: bool,
}

impl Turn {
    /// Reads a message with this prefix and content, e.g. `strangler.fence` and `orders@3`; none if it is another one.
    pub fn read(prefix: &str, content: &str) -> Option<Turn> {
        let is_shut = match prefix {
            "strangler.fence" => true,
            "strangler.open" => false,
            _ => return None,
        };
        let (slice, epoch) = at_epoch(content)?;
        Some(Self { slice, epoch, is_shut })
    }
}

/// `WHAT@EPOCH`. One text for one epoch: no sign, no leading zero.
fn at_epoch<T: FromStr>(text: &str) -> Option<(T, Epoch)> {
    let (what, epoch) = text.split_once('@')?;
    let is_plain = epoch == "0" || epoch.bytes().next().is_some_and(|first| (b'1'..=b'9').contains(&first));
    let epoch = epoch.parse().ok().filter(|_| is_plain)?;
    Some((what.parse().ok()?, Epoch(epoch)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lanes_and_marks_read_back(slice in "[a-z][a-z0-9-]{0,31}", is_forward: bool, epoch: u64) {
            let direction = if is_forward { Direction::Forward } else { Direction::Reverse };
            let lane = LaneId { slice: slice.parse().unwrap(), direction };
            prop_assert_eq!(lane.to_string().parse(), Ok(lane.clone()));
            let json = serde_json::to_string(&lane).unwrap();
            prop_assert_eq!(&json, &format!("\"{lane}\""));
            prop_assert_eq!(serde_json::from_str::<LaneId>(&json).unwrap(), lane.clone());
            let mark = Mark { lane, epoch: Epoch(epoch) };
            prop_assert_eq!(mark.to_string().parse(), Ok(mark));
        }

        #[test]
        fn only_what_a_mark_prints_is_read_as_one(text in "([a-z/@+0-9-]{0,12}|[a-z]{1,3}/(forward|reverse)@[+0-9]{0,3})") {
            if let Ok(mark) = text.parse::<Mark>() {
                prop_assert_eq!(mark.to_string(), text);
            }
        }
    }

    #[test]
    fn a_turned_gate_names_its_slice_and_epoch() {
        let turn = |is_shut| Turn { slice: "orders".parse().unwrap(), epoch: Epoch(12), is_shut };
        assert_eq!(Turn::read("strangler.fence", "orders@12"), Some(turn(true)));
        assert_eq!(Turn::read("strangler.open", "orders@12"), Some(turn(false)));
        assert_eq!(Turn::read("strangler.barrier", "orders@12"), None);
        for bad in ["orders", "orders@", "orders@01", "orders@-1", "orders/forward@1", "@1"] {
            assert_eq!(Turn::read("strangler.fence", bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_no_lane_or_mark_is_refused() {
        for bad in
            ["", "orders", "orders/", "/forward", "orders/sideways", "Orders/forward", "a/forward/reverse"]
        {
            let refused = bad.parse::<LaneId>().unwrap_err().to_string();
            assert!(refused.starts_with(&format!("`{bad}` is not a lane:")), "{refused}");
        }
        for bad in
            ["orders", "orders/forward", "orders/forward@", "orders/forward@-1", "orders/forward@01", "@3"]
        {
            let refused = bad.parse::<Mark>().unwrap_err().to_string();
            assert!(refused.starts_with(&format!("`{bad}` is not a lane's mark")), "{refused}");
        }
    }
}
