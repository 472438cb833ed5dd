"""Cycles, bytes and memory of a network on Arm's Ethos-U, decided and reckoned the way its compiler Vela does.

`graph_reader` and `network` (what the unit executes, in which order) → `blocks` (into which pieces) → `cycles` and
`traffic` (of one operation) → `weights` (their encoded size) → `costs` and `step` (an operation cut into stripes and
slices) → `buffering`, `cascades`, `staging`, `live` (what lies in on-chip memory when) → `schedule` → `estimate`.

The rules and formulas were read in Arm's own compiler, ethos-u-vela 5.2.0 (Apache-2.0, copyright Arm Limited and/or its
affiliates), in the C++ of its source distribution on PyPI: the configurations, cycles and choice of blocks in
`ethosu/regor/architecture/ethosu{55,65,85}`; the scheduler, cascades, live ranges, staging and performance in
`ethosu/regor/compiler`; the encoder of weights in `ethosu/regor/dependencies/mlw_codec`. They are said here in this
project's terms and computed in its own way (`blocks_u85` reads blocks off a table of what budgets buy, `staging` sweeps
over time). What a prediction has to share with that source is what it decides by: its quantities, thresholds and ties,
and where its answer hangs on the order of its search, that order too. That is so in `blocks_u85._affordable` and
`_one_granule_less`, `buffering._halvings` and `_pays`, and in `cascades.optimize_cascade`.

The compiler estimates in order to decide, and where its estimate is rough, so is this one: a prediction of what it will
do has to share its view. Known to differ from it, each by a few percent at most where it was seen:

- what a chain of operations writes that ends without an activation (U85) is counted here and not there;
- copying a lookup table into the unit, and copying a network's input into SRAM before a layer reads it often, are not
  modelled; neither are 2:4 sparse weights and weights of at most 16 distinct values (U85);
- the encoded size of weights is reckoned from their histogram, not from their order (within 1 % of the encoder's).
"""
