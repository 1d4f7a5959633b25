//! Reading: snapshots, enumeration, probes.
