"""Networks written for the latency benchmark: what libraries of classifiers lack, in many sizes, random weights."""
