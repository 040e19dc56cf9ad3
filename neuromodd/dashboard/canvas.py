"""What the pictures share: their size and colours, and the parts of matplotlib that they use alike.

A picture is drawn without a display, and the same data give the same bytes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Iterator
from datetime import UTC
from typing import TYPE_CHECKING, Any

from neuromodd.dashboard import report_page
from neuromodd.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN, DPI = 10.0, 120
INCH_A_POINT = 1.0 / 72.0
SMALL, USUAL, LARGE = 7.0, 8.0, 11.0
LETTER_IN = 0.6 * SMALL * INCH_A_POINT
"""About the width of a small letter."""

INK, FAINT, RULE, UNWATCHED = "#1a1a1a", "#5f5f5f", "#d9d9d9", "#e9e9e9"

LINES: tuple[tuple[str, Any], ...] = (
    ("#000000", "-"),
    ("#d55e00", (0, (5, 1.6))),
    ("#0072b2", (0, (1.2, 1.2))),
    ("#009e73", (0, (6, 1.6, 1.2, 1.6))),
)
"""Colours of Okabe and Ito, which the colour-blind tell apart, and dashes, for grey."""


def require(what: str) -> None:
    """See that there is matplotlib.

    Raises:
        MissingExtraError: it is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError(what, "plot")


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Matplotlib's own defaults and ours over them, whatever the user has set; after it all is as before."""
    import matplotlib as mpl  # noqa: PLC0415 - large, and an extra

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(
            {
                "font.size": USUAL,
                "font.family": ["sans-serif"],
                "text.color": INK,
                "text.parse_math": False,
                "axes.edgecolor": FAINT,
                "axes.linewidth": 0.6,
                "axes.labelcolor": INK,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "xtick.color": FAINT,
                "ytick.color": FAINT,
                "xtick.labelcolor": INK,
                "ytick.labelcolor": INK,
                "xtick.major.width": 0.6,
                "ytick.major.width": 0.6,
                "xtick.major.size": 3.0,
                "ytick.major.size": 2.5,
                "xtick.labelsize": USUAL,
                "ytick.labelsize": SMALL,
                "hatch.linewidth": 0.5,
                "hatch.color": "#c4c4c4",
                "svg.fonttype": "none",
                "svg.hashsalt": "neuromodd",
                "timezone": "UTC",
            }
        )
        yield


def saved(figure: Figure, form: str, metadata: dict[str, Any]) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A name from outside may be in a script that the font lacks: there are boxes then.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(buffer, format=form, dpi=DPI, metadata=metadata)
    return buffer.getvalue()


def accessible(svg: str, title: str, description: str) -> str:
    """The same for those who can't see it: a role, a title and a description."""
    head, tag, rest = svg.partition("<svg ")
    attributes, end, body = rest.partition(">")
    names = 'role="img" aria-labelledby="picture-title picture-description" '
    words = (
        f'\n <title id="picture-title">{report_page.escaped(title)}</title>'
        f'\n <desc id="picture-description">{report_page.escaped(description)}</desc>'
    )
    return f"{head}{tag}{names}{attributes}{end}{words}{body}"


def heading(figure: Figure, axes: Axes, title: str, note: str = "", *, up_in: float = 0.0) -> None:
    """A heading above the panel, and what its marks mean."""
    from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea  # noqa: PLC0415 - as above

    parts: list[Artist] = [TextArea(title, textprops={"size": USUAL, "weight": "bold", "color": INK})]
    if note:
        parts.append(TextArea(note, textprops={"size": SMALL, "color": FAINT}))
    packed = HPacker(children=parts, pad=0, sep=6, align="baseline")
    box = AnchoredOffsetbox(
        loc="lower left",
        child=packed,
        frameon=False,
        pad=0.0,
        borderpad=0.0,
        bbox_to_anchor=(0.0, 1.0),
        bbox_transform=axes.transAxes + _shift(figure, 0.0, 3.5 * INCH_A_POINT + up_in),
    )
    box.set_clip_on(False)
    axes.add_artist(box)


def mark_times(axes: Axes, *, told: bool, zone_pt: float = 6.0) -> None:
    """Thin rules at round times, which are told below some of the panels, with the zone left of them."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415 - as above

    locator = AutoDateLocator(tz=UTC, minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
    days, minutes, seconds = "%a %d %b", "%H:%M", "%H:%M:%S"
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(
        ConciseDateFormatter(  # type: ignore[no-untyped-call]
            locator,
            tz=UTC,
            formats=["%Y", "%b %Y", days, minutes, minutes, seconds],
            zero_formats=["%Y", "%Y", days, days, minutes, minutes],
            show_offset=False,
        )
    )
    axes.grid(axis="x", color=RULE, linewidth=0.5, zorder=0.1)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", labelbottom=told, length=3.0 if told else 0.0)
    if told:
        left_below(axes, "UTC", zone_pt)


def left_below(axes: Axes, text: str, left_pt: float) -> None:
    """What the numbers below a panel are, left of them."""
    axes.annotate(
        text,
        (0.0, 0.0),
        xytext=(-left_pt, -5),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        va="top",
        size=SMALL,
        color=FAINT,
        annotation_clip=False,
    )


def _shift(figure: Figure, right_in: float, up_in: float) -> Any:  # noqa: ANN401 - a transform
    from matplotlib.transforms import ScaledTranslation  # noqa: PLC0415 - as above

    return ScaledTranslation(right_in, up_in, figure.dpi_scale_trans)
