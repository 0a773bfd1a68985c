"""A run judged beyond one number: where it errs, and what validation pictures choose for its use."""
