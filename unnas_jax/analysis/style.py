"""How every picture looks: colours, line styles, names of states, file formats."""

import io

import matplotlib
from matplotlib.figure import Figure
from matplotlib.typing import LineStyleType

INK = "#222222"
FAINT = "#8a8a8a"
GRID = "#e3e3e3"

# Okabe and Ito's colours, distinct under the common colour deficiencies.
FAMILIES = {
    "separable convolution": "#0072b2",
    "dilated convolution": "#d55e00",
    "convolution": "#8a5a00",
    "pooling": "#009e73",
    "skip connection": "#b0558f",
    "noise": "#4d4d4d",
    "none": "#8a8a8a",
}

# Within a family lightness and dashes tell operations apart, also without hue.
OPERATION_STYLES: dict[str, tuple[str, LineStyleType]] = {
    "none": ("#8a8a8a", ":"),
    "max_pool_3x3": ("#009e73", "-"),
    "avg_pool_3x3": ("#5fc9a8", "--"),
    "skip_connect": ("#b0558f", "-"),
    "sep_conv_3x3": ("#0072b2", "-"),
    "sep_conv_5x5": ("#56b4e9", "--"),
    "dil_conv_3x3": ("#d55e00", "-"),
    "dil_conv_5x5": ("#e69f00", "--"),
    "nor_conv_1x1": ("#8a5a00", "--"),
    "nor_conv_3x3": ("#0072b2", "-"),
}


def family(operation: str) -> str:
    """The family of an operation, a key of `FAMILIES`."""
    if operation.startswith("sep_conv"):
        return "separable convolution"
    if operation.startswith("dil_"):
        return "dilated convolution"
    if "pool" in operation:
        return "pooling"
    if operation in ("noise", "none"):
        return operation
    return "skip connection" if operation == "skip_connect" else "convolution"


def of_operation(operation: str) -> tuple[str, LineStyleType]:
    """Colour and dashes of an operation's line; one not in `OPERATION_STYLES` has its family's."""
    if operation in OPERATION_STYLES:
        return OPERATION_STYLES[operation]
    dashes: tuple[LineStyleType, ...] = ("-.", (0, (1, 1)), (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)))
    return FAMILIES[family(operation)], dashes[sum(operation.encode()) % len(dashes)]


def state_name(state: int) -> str:
    """How a picture names a state: the two inputs by the cell they come from, nodes from 0."""
    return ("$c_{k-2}$", "$c_{k-1}$")[state] if state < 2 else str(state - 2)


def render(figure: Figure, kind: str) -> bytes:
    """The figure as a file: "svg", "pdf" or "png"; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    # Text stays text: SVG files are smaller, can be searched, and can be read aloud.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "unnas_jax"}):
        if kind == "svg":
            figure.savefig(buffer, format="svg", metadata={"Date": None})
        elif kind == "pdf":
            figure.savefig(buffer, format="pdf", metadata={"CreationDate": None})
        else:
            figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
