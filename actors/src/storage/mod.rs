//! The replica store below the actors.
