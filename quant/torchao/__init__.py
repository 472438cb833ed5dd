"""To and from torchao, an extra: our plans in other people's flow, and what torchao has quantized as a network of ours.

    quantizer.SchemeQuantizer    a scheme for `prepare_pt2e` and `convert_pt2e`, which ExecuTorch's users run
    converted.import_converted   a program of `convert_pt2e`, with its codes and scales
    weights.import_weights       a model of `quantize_`, with its codes and scales
    configs.scheme_of            a configuration for `quantize_` as a scheme

torchao's annotations know no groups, blocks, scale formats or true fp8, so this is an adapter at the edge: a plan is
decided as always and then written onto their graph.
"""
