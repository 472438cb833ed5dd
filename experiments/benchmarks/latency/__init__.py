"""The networks whose latency is predicted and then measured: a pool, their files, their measurement, the draw."""
