"""The stages of normalisation, and the order of the passes in them."""

from __future__ import annotations

from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.passes.arithmetic import ARITHMETIC
from tutelage.host.quantise.graph.passes.channels import (
    JOIN_SELECTIONS,
    MERGE_SELECTIONS,
    SELECTIONS_AS_LAYERS,
    SELECTIONS_BACK,
    SELECTIONS_FORWARD,
    SELECTIONS_OF_CONCATS,
)
from tutelage.host.quantise.graph.passes.common import COMMON
from tutelage.host.quantise.graph.passes.constants import CONSTANTS
from tutelage.host.quantise.graph.passes.factors import (
    FACTORS_AS_LAYERS,
    FOLD_BACK,
    FOLD_FORWARD,
    MERGE_FACTORS,
)
from tutelage.host.quantise.graph.passes.flat_norms import FLAT_NORMS
from tutelage.host.quantise.graph.passes.functions import FUNCTIONS
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass
from tutelage.host.quantise.graph.passes.identities import IDENTITIES
from tutelage.host.quantise.graph.passes.in_place import IN_PLACE
from tutelage.host.quantise.graph.passes.layouts import LAYOUTS
from tutelage.host.quantise.graph.passes.maxima import MAXIMA, MAXIMA_OVER_CHANNELS
from tutelage.host.quantise.graph.passes.moved_operands import (
    MOVED_ACTIVATIONS,
    MOVED_CONCATS,
    MOVED_FACTORS,
    MOVED_OPERANDS,
)
from tutelage.host.quantise.graph.passes.movements import DENSE_OF_PIXELS, MOVEMENTS
from tutelage.host.quantise.graph.passes.output import FLAT_OUTPUTS, OUTPUT_ACTIVATION
from tutelage.host.quantise.graph.passes.over_neighbours import OVER_NEIGHBOURS
from tutelage.host.quantise.graph.passes.padding import (
    JOIN_PADDING,
    PADDED_MAX_POOL,
    STANDARD_PADDING,
)
from tutelage.host.quantise.graph.passes.pair_softmax import PAIR_SOFTMAX
from tutelage.host.quantise.graph.passes.plain_modules import PLAIN_MODULES
from tutelage.host.quantise.graph.passes.pools import (
    ADAPTIVE_POOLS,
    LARGE_AVERAGES,
    ONE_PIXEL_POOLS,
    ROW_THEN_COLUMN,
    STANDARD_POOLS,
)
from tutelage.host.quantise.graph.passes.reductions import OVER_CHANNELS, REDUCTIONS
from tutelage.host.quantise.graph.passes.relu_first import RELU_FIRST
from tutelage.host.quantise.graph.passes.replacements import REPLACEMENTS
from tutelage.host.quantise.graph.passes.sequences import (
    SEQUENCE_INPUTS,
    SEQUENCES,
    VECTOR_MAPS,
)
from tutelage.host.quantise.graph.passes.split_dense import SPLIT_DENSE
from tutelage.host.quantise.graph.passes.stacks import REDUCED_STACKS, STACKS, SUMS_OF_GROUPS
from tutelage.host.quantise.graph.passes.written_activations import (
    SCALED_PRODUCT,
    WRITTEN_ACTIVATIONS,
)
from tutelage.host.quantise.graph.passes.zero_channels import ZERO_CHANNELS

Stages = tuple[tuple[GraphPass, ...], ...]

CANONICAL: Stages = (
    (PLAIN_MODULES,),
    (CONSTANTS,),
    (IDENTITIES,),  # before IN_PLACE, so that a value has one name only
    (IN_PLACE,),
    (FUNCTIONS, IDENTITIES),
    (FLAT_OUTPUTS, OUTPUT_ACTIVATION, SEQUENCE_INPUTS),
    (PAIR_SOFTMAX,),
    (ARITHMETIC, MERGE_FACTORS, SCALED_PRODUCT, WRITTEN_ACTIVATIONS, IDENTITIES),
)
"""Stages that give each operation a single form."""

REPLACING: Stages = ((REPLACEMENTS,),)
"""The stage of replacements, after which the network computes another function."""

FOR_DPU: Stages = (
    # Shapes: forms that the DPU supports.
    (STANDARD_PADDING, ZERO_CHANNELS, DENSE_OF_PIXELS, REDUCED_STACKS, STACKS, REDUCTIONS,
     OVER_CHANNELS, SUMS_OF_GROUPS, MAXIMA, MAXIMA_OVER_CHANNELS, OVER_NEIGHBOURS,
     MOVED_ACTIVATIONS, MOVED_FACTORS, MOVED_OPERANDS, MOVED_CONCATS, MOVEMENTS, SEQUENCES,
     VECTOR_MAPS, ARITHMETIC, ADAPTIVE_POOLS, STANDARD_POOLS, ROW_THEN_COLUMN, ONE_PIXEL_POOLS,
     LARGE_AVERAGES, IDENTITIES),
    # Places: folding into the layers before and after.
    (FLAT_NORMS, SPLIT_DENSE, COMMON, RELU_FIRST, MOVEMENTS, JOIN_PADDING, PADDED_MAX_POOL,
     MERGE_FACTORS, FOLD_BACK,
     FOLD_FORWARD,
     MERGE_SELECTIONS, JOIN_SELECTIONS, SELECTIONS_OF_CONCATS, SELECTIONS_BACK,
     SELECTIONS_FORWARD, IDENTITIES),
    # Outputs, whose selections of channels may be folded into weights.
    (LAYOUTS, MERGE_SELECTIONS, SELECTIONS_OF_CONCATS, SELECTIONS_BACK, SELECTIONS_FORWARD,
     IDENTITIES),
    # Selections and factors that could not be folded.
    (SELECTIONS_AS_LAYERS, FACTORS_AS_LAYERS),
)  # fmt: skip
"""Stages that give operations the forms and the order that the DPU supports."""

_MOST_ROUNDS = 1000


def normalise(graph: Graph, stages: Stages) -> None:
    """Rewrite a captured network, in place.

    Parameters
    ----------
    graph : the network
    stages : run in order; each is repeated until none of its passes changes anything
    """
    graph.drop_dead()
    for stage in stages:
        for _ in range(_MOST_ROUNDS):
            changed = False
            for graph_pass in stage:
                if graph_pass.run(graph):
                    graph.drop_dead()
                    changed = True
            if not changed:
                break
    graph.module.delete_all_unused_submodules()
    graph.module.graph.lint()
    graph.module.recompile()
