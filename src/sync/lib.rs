//! What changed for a device, for `/sync` and sliding sync to encode. Nothing lies here yet.
