"""Lowering: from a network and a target to the fused, tiled, placed and scheduled program that would run there."""
