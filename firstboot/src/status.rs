//! What the operator and the tests are told.
