//! What was seen of the live systems, and every reason why a slice is not ready.
