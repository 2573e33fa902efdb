"""Compiled kernels: one algorithm a file, on plain arrays, a span of a batch a call.

Nothing here knows of programs, plans or torch. A kernel reads ``(1|B, k)`` arrays (1: all items share it),
works on the items ``start`` to ``stop``, writes into arrays it is given, and holds no lock, so that threads
share a batch by spans. Items never look at each other: an item's bits depend on nothing but its own numbers.

Import a kernel's module only when it is needed: numba takes half a second, and a first compilation some more
(kept on disk for the next process).
"""
