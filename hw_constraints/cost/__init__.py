"""Cost: cycles, bytes and energy of a lowered program, from the target's own figures."""
