"""Pure functions on device arrays: pixels and losses."""
