//! RPM repositories: their metadata, and which packages a list of names needs. No network: it is given bytes.
