"""The problem library: combinatorial problems written as LPs, as functions and as modules that hold options.

A problem builds its LinearProgram once a shape, maps its natural parameters to the program's costs by
differentiable torch operations, and decodes a vertex into the object it stands for; it knows nothing of
backends. Some bring a compiled solver of their own (an oracle), with the LP as its definition and its test.

Never import this folder as ``problems``: under two names every class would exist twice.
"""

from .alignment import (
    Alignment,
    GlobalAlignment,
    LocalAlignment,
    SemiGlobalAlignment,
    global_alignment,
    local_alignment,
    semi_global_alignment,
)
from .bags import BagLabelling, BagMatching, bag_matching
from .base import ProblemModule, SolveOptions
from .chains import ChainSolution, Viterbi, viterbi
from .flows import CutSolution, FlowSolution, MaxFlow, MinCostFlow, MinCut, max_flow, min_cost_flow, min_cut
from .grids import GridPath, GridPathSolution, grid_graph, grid_path
from .isotonic import IsotonicRegression, IsotonicSolution, isotonic_regression
from .matching import Assignment, Matching, assignment
from .monotonic import (
    CTCAlignment,
    FrameAlignment,
    MonotonicAlignment,
    ctc_alignment,
    monotonic_alignment,
)
from .pairwise import PairwiseMap, PairwiseSolution, pairwise_map
from .paths import GraphPath, LongestPath, PathSolution, graph_path, longest_path
from .ranking import Rank, RankingSolution, rank
from .sets import (
    PermutationInvariant,
    PermutationMatching,
    SetMatcher,
    SetMatching,
    permutation_invariant,
    set_matching,
)
from .subsets import (
    Knapsack,
    KnapsackSolution,
    KSubset,
    SubsetSolution,
    TopK,
    k_subset,
    knapsack,
    multi_knapsack,
    top_k,
)
from .tokens import TokenAlignment, token_alignment
from .transport import (
    BMatching,
    BMatchingSolution,
    OptimalTransport,
    TransportSolution,
    b_matching,
    optimal_transport,
)
from .trees import MinimumSpanningTree, TreeSolution, minimum_spanning_tree
from .warping import DTW, Warping, dtw

__all__ = [
    "DTW",
    "Alignment",
    "Assignment",
    "BMatching",
    "BMatchingSolution",
    "BagLabelling",
    "BagMatching",
    "CTCAlignment",
    "ChainSolution",
    "CutSolution",
    "FlowSolution",
    "FrameAlignment",
    "GlobalAlignment",
    "GraphPath",
    "GridPath",
    "GridPathSolution",
    "IsotonicRegression",
    "IsotonicSolution",
    "KSubset",
    "Knapsack",
    "KnapsackSolution",
    "LocalAlignment",
    "LongestPath",
    "Matching",
    "MaxFlow",
    "MinCostFlow",
    "MinCut",
    "MinimumSpanningTree",
    "MonotonicAlignment",
    "OptimalTransport",
    "PairwiseMap",
    "PairwiseSolution",
    "PathSolution",
    "PermutationInvariant",
    "PermutationMatching",
    "ProblemModule",
    "Rank",
    "RankingSolution",
    "SemiGlobalAlignment",
    "SetMatcher",
    "SetMatching",
    "SolveOptions",
    "SubsetSolution",
    "TokenAlignment",
    "TopK",
    "TransportSolution",
    "TreeSolution",
    "Viterbi",
    "Warping",
    "assignment",
    "b_matching",
    "bag_matching",
    "ctc_alignment",
    "dtw",
    "global_alignment",
    "graph_path",
    "grid_graph",
    "grid_path",
    "isotonic_regression",
    "k_subset",
    "knapsack",
    "local_alignment",
    "longest_path",
    "max_flow",
    "min_cost_flow",
    "min_cut",
    "minimum_spanning_tree",
    "monotonic_alignment",
    "multi_knapsack",
    "optimal_transport",
    "pairwise_map",
    "permutation_invariant",
    "rank",
    "semi_global_alignment",
    "set_matching",
    "token_alignment",
    "top_k",
    "viterbi",
]
