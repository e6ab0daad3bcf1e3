//! Every knob: its unit, its default, and what happens at the limit.
