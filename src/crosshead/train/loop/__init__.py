"""What happens in every step: the loop, the optimizer, the devices."""
