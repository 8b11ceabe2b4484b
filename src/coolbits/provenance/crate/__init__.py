"""RO-Crate: a study's results as a zip file that others' tools can read, after the Provenance Run Crate profile."""
