"""Draws the pictures of this folder: python docs/interactions/pictures.py

Plain SVG on a white ground, so that they read alike on light and dark pages; a head has one colour throughout.
"""

import random
from pathlib import Path

HEADS = ["#1f6fb2", "#d1495b", "#2e8b57", "#b8860b"]
GREY, INK, CELL = "#777", "#222", 12


class Picture:
    """Shapes on a white ground."""

    def __init__(self, width: int, height: int, label: str) -> None:
        self._lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            f'font-family="system-ui, sans-serif" aria-label="{label}">',
            f"<title>{label}</title>",
            '<rect width="100%" height="100%" fill="white"/>',
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
            f'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{GREY}"/></marker></defs>',
        ]
        self._random = random.Random(7)

    def rect(self, x: float, y: float, w: float, h: float, fill: str, opacity: float = 1.0) -> None:
        self._lines.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" fill="{fill}" '
            f'fill-opacity="{opacity:.2f}" stroke="white"/>'
        )

    def frame(self, x: float, y: float, w: float, h: float, dashed: bool = False) -> None:
        dash = ' stroke-dasharray="3,3"' if dashed else ""
        self._lines.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" fill="none" stroke="{GREY}"{dash}/>'
        )

    def text(
        self, x: float, y: float, words: str, size: int = 13, anchor: str = "middle", fill: str = INK
    ) -> None:
        self._lines.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}" fill="{fill}">{words}</text>'
        )

    def arrow(self, x1: float, y1: float, x2: float, y2: float) -> None:
        self._lines.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{GREY}" stroke-width="1.5" '
            'marker-end="url(#tip)"/>'
        )

    def map(self, x: float, y: float, rows: int, columns: int, shares: list[float], cell: int = CELL) -> None:
        """A map of rows x columns: each cell in bands of the heads' colours, as wide as their shares."""
        total = sum(shares)
        self.rect(x, y, columns * cell, rows * cell, "white")
        for i in range(rows):
            for j in range(columns):
                shade, left = 0.25 + 0.75 * self._random.random(), x + j * cell
                for colour, share in zip(HEADS, shares, strict=True):
                    if share:
                        self.rect(left, y + i * cell, cell * share / total, cell, colour, shade)
                        left += cell * share / total
        self.frame(x, y, columns * cell, rows * cell)

    def matrix(self, x: float, y: float, values: list[list[float]], cell: int = 14) -> None:
        """Numbers from 0 to 1 as shades of grey."""
        for i, row in enumerate(values):
            for j, value in enumerate(row):
                self.rect(x + j * cell, y + i * cell, cell, cell, INK, value)
        self.frame(x, y, len(values[0]) * cell, len(values) * cell)

    def vector(
        self, x: float, y: float, length: int, colour: str, opacity: float = 1.0, cell: int = CELL
    ) -> None:
        for i in range(length):
            self.rect(x + i * cell, y, cell, cell, colour, opacity)

    def write(self, name: str) -> None:
        (Path(__file__).parent / name).write_text("\n".join([*self._lines, "</svg>", ""]))


MIXING = [[0.8, 0.1, 0.3, 0.05], [0.15, 0.7, 0.05, 0.2], [0.3, 0.1, 0.75, 0.1], [0.05, 0.25, 0.1, 0.7]]
OTHER = [[0.7, 0.2, 0.1, 0.25], [0.1, 0.75, 0.3, 0.05], [0.05, 0.2, 0.7, 0.3], [0.3, 0.05, 0.1, 0.8]]
OWN = [[float(i == g) for i in range(4)] for g in range(4)]


def _column(picture: Picture, x: float, shares: list[list[float]], title: str, size: int = 4) -> None:
    picture.text(x + size * CELL / 2, 34, title)
    for g in range(4):
        picture.map(x, 46 + g * 60, size, size, shares[g])


def _by(picture: Picture, x: float, values: list[list[float]], name: str, note: str) -> None:
    picture.arrow(x, 160, x + 26, 160)
    picture.matrix(x + 32, 132, values)
    picture.text(x + 60, 122, name)
    picture.text(x + 60, 206, note, 11, fill=GREY)
    picture.arrow(x + 94, 160, x + 120, 160)


def talking() -> None:
    p = Picture(780, 330, "Talking heads: logits and weights of all heads are mixed")
    _column(p, 40, OWN, "logits")
    _by(p, 98, MIXING, "P_l", "h x h")
    _column(p, 228, MIXING, "mixed logits")
    p.arrow(286, 160, 352, 160)
    p.text(319, 150, "softmax", 11, fill=GREY)
    _column(p, 362, MIXING, "maps")
    _by(p, 420, OTHER, "P_w", "h x h")
    _column(p, 550, OTHER, "mixed maps")
    p.arrow(608, 160, 664, 160)
    p.text(636, 150, "times V", 11, fill=GREY)
    for g in range(4):
        p.vector(672, 64 + g * 60, 6, HEADS[g])
    p.text(708, 34, "heads")
    p.text(
        40,
        312,
        "Each mixed map is a learned mixture of all heads' maps, the same at every pair of tokens.",
        anchor="start",
    )
    p.write("talking.svg")


def reattention() -> None:
    p = Picture(780, 330, "Re-attention: the maps of all heads are mixed and normalised over the batch")
    _column(p, 40, OWN, "logits")
    p.arrow(98, 160, 164, 160)
    p.text(131, 150, "softmax", 11, fill=GREY)
    _column(p, 174, OWN, "maps")
    _by(p, 232, MIXING, "Θ", "h x h")
    _column(p, 362, MIXING, "mixed maps")
    p.arrow(420, 160, 446, 160)
    p.frame(452, 118, 106, 84)
    p.text(505, 140, "norm of a head", 12)
    p.text(505, 160, "(M − mean) / std", 12)
    p.text(505, 178, "· γ + β", 12)
    p.text(505, 196, "over the batch", 11, fill=GREY)
    p.arrow(562, 160, 588, 160)
    _column(p, 594, MIXING, "normalised")
    p.arrow(650, 160, 690, 160)
    p.text(670, 150, "times V", 11, fill=GREY)
    for g in range(4):
        p.vector(696, 64 + g * 60, 5, HEADS[g])
    p.text(726, 34, "heads")
    p.text(
        40,
        312,
        "After the norm a map is no distribution: entries have either sign, and rows do not sum to one.",
        anchor="start",
    )
    p.write("reattention.svg")


def knocking() -> None:
    p = Picture(780, 262, "Knocking heads: one matrix that all heads share, before attention")
    shared = [[0.8, 0.15, 0.05, 0.2, 0.1], [0.1, 0.75, 0.2, 0.05, 0.1], [0.2, 0.1, 0.8, 0.1, 0.05]]
    shared += [[0.05, 0.2, 0.1, 0.7, 0.2], [0.1, 0.05, 0.2, 0.1, 0.8]]
    p.text(40, 34, "Q, K or V, head by head", anchor="start")
    for g in range(4):
        y = 52 + g * 44
        p.vector(40, y, 5, HEADS[g])
        p.arrow(108, y + 6, 196, 112 + g * 8)
        p.arrow(288, 112 + g * 8, 376, y + 6)
        p.vector(384, y, 5, HEADS[g], 0.75)
        p.arrow(452, y + 6, 520, y + 6)
    p.matrix(206, 86, shared)
    p.text(241, 76, "T")
    p.text(241, 178, "d x d, one for all heads", 11, fill=GREY)
    p.text(414, 34, "knocked")
    p.frame(526, 44, 110, 156)
    p.text(581, 118, "attention,")
    p.text(581, 136, "as it was")
    p.text(
        40,
        244,
        "T is linear, and so part of the projection, W′ = W T: training multiplies weights, inference stores them.",
        anchor="start",
    )
    p.write("knocking.svg")


def dcmha() -> None:
    p = Picture(
        780,
        300,
        "Dynamically composable heads: the two tokens of a pair bring the matrices that mix its heads",
    )
    p.text(40, 34, "logits of the pair (t, s)", anchor="start")
    for g in range(4):
        p.map(40 + g * 12, 50 + g * 12, 5, 5, OWN[g])
        p.frame(40 + g * 12 + 36, 50 + g * 12 + 24, 12, 12)
    p.arrow(150, 112, 214, 112)
    for g in range(4):
        p.rect(222, 82 + g * 16, 16, 16, HEADS[g])
    p.text(230, 70, "h", 11, fill=GREY)
    p.text(258, 118, "·", 18)
    p.text(264, 118, "(", 30, "start")
    for x, values, name in ((282, OWN, "I + W_b"), (372, MIXING, "of query t"), (462, OTHER, "of key s")):
        p.matrix(x, 86, values)
        p.text(x + 28, 76, name)
    p.text(355, 119, "+", 18)
    p.text(445, 119, "+", 18)
    p.text(526, 118, ")", 30, "start")
    p.arrow(546, 112, 580, 112)
    for g in range(4):
        left = 588.0
        for i, share in enumerate(MIXING[g]):
            width = 28 * share / sum(MIXING[g])
            p.rect(left, 82 + g * 16, width, 16, HEADS[i])
            left += width
    p.arrow(624, 112, 684, 112)
    p.text(652, 102, "softmax", 11, fill=GREY)
    p.text(730, 100, "once more")
    p.text(730, 117, "the same,")
    p.text(730, 134, "then times V")
    for x, name in ((400, "token t"), (490, "token s")):
        p.vector(x - 30, 206, 5, "#999")
        p.arrow(x, 202, x, 150)
        p.text(x, 236, name)
    p.text(300, 182, "GELU(x W₁) W₂: rank 2, and a diagonal", 11, "end", GREY)
    p.text(
        40,
        280,
        "Each token brings two matrices before the softmax and two after it: every pair of tokens mixes its own way.",
        anchor="start",
    )
    p.write("dcmha.svg")


def landmarks() -> None:
    p = Picture(780, 320, "Interactive heads: two thin maps through landmarks, mixed over the heads")
    cell = 10
    p.frame(40, 60, 100, 100, dashed=True)
    p.text(90, 114, "N x N", fill=GREY)
    p.text(90, 176, "never formed", 11, fill=GREY)
    p.text(166, 116, "≈", 20)
    for g in reversed(range(4)):
        p.map(200 + g * 8, 60 + g * 8, 10, 3, OWN[g], cell)
    p.text(200, 48, "A_Q: queries to landmarks", anchor="start")
    p.text(228, 206, "N x L a head", 11, fill=GREY)
    for g in reversed(range(4)):
        p.map(420 + g * 8, 80 + g * 8, 3, 10, OWN[g], cell)
    p.text(484, 62, "A_K: landmarks to keys")
    p.text(484, 206, "L x N a head", 11, fill=GREY)
    p.matrix(290, 90, MIXING)
    p.text(318, 80, "M_Q")
    p.matrix(580, 90, OTHER)
    p.text(608, 80, "M_K")
    p.text(374, 124, "·", 24)
    p.text(660, 124, "·", 24)
    for g in reversed(range(4)):
        p.map(680 + g * 8, 60 + g * 8, 10, 4, OWN[g], cell)
    p.text(712, 48, "V")
    p.arrow(700, 222, 540, 222)
    p.text(620, 240, "first: C = Â_K V, L x d a head", 11, fill=GREY)
    p.arrow(500, 222, 300, 222)
    p.text(400, 240, "then: O = Â_Q C", 11, fill=GREY)
    p.text(
        40,
        286,
        "Landmarks are averages of queries and keys over the cells of a grid; M_Q and M_K mix the heads of both maps.",
        anchor="start",
    )
    p.text(
        40, 306, "From the right to the left everything is linear in the number of tokens.", anchor="start"
    )
    p.write("landmarks.svg")


if __name__ == "__main__":
    for draw in (talking, reattention, knocking, dcmha, landmarks):
        draw()
