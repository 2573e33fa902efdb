"""Demo A: learn classes from bags of images whose labels are known only as an unordered multiset.

Gao et al., arXiv 1910.08211, section 4. ``lpdiff demo bags --help``.
"""
