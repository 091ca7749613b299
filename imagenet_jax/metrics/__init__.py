"""What is counted: sums on the device, ratios on the host."""
