"""Cycles, bytes and memory of a network on Arm's Ethos-U, decided and reckoned the way its compiler Vela does.

`operations` (what the unit executes) → `blocks` (into which pieces) → `cycles` and `traffic` (of one operation) →
`weights` (their encoded size) → `buffering`, `cascades`, `staging` (what lies in on-chip memory when) → `schedule`.
"""
