"""What surfaces are made of: a pattern with its colours, drawn at random from families shared by all classes.

No colour and no pattern belongs to one class: a wall may be wood, a cupboard white, a sofa red or the grey of the TV
beside it. The patterns themselves are evaluated in `textures`.
"""

import colorsys
from dataclasses import dataclass, replace

import numpy as np

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Material:
    """A procedural surface.

    pattern: a key of `textures.PATTERNS`.
    colours: linear RGB reflectances in [0, 1]; the pattern says how many it uses, the first is the main one.
    scale:   metres of one repeat (plank width, tile side, stripe period).
    extent:  width and height in metres of a surface that shows one picture, around the part's origin.
    gloss:   strength of the highlight, 0 (chalk) to 1 (glass).
    glow:    light sent out per unit of reflectance; 0 for everything but lamps, screens and the view outside.
    turned:  whether the two texture axes are swapped, so that the grain of a leg runs along the leg.
    seed:    varies the pattern, 0 to 65535.
    """

    pattern: str
    colours: tuple[Colour, ...]
    scale: float = 1.0
    extent: tuple[float, float] = (1.0, 1.0)
    gloss: float = 0.0
    glow: float = 0.0
    turned: bool = False
    seed: int = 0


# Hue, saturation and value ranges of the families that colours are drawn from.
_MOODS = {
    "wood": ((0.04, 0.11), (0.25, 0.75), (0.18, 0.85)),
    "pale": ((0.0, 1.0), (0.0, 0.16), (0.7, 0.96)),
    "grey": ((0.0, 1.0), (0.0, 0.10), (0.08, 0.85)),
    "muted": ((0.0, 1.0), (0.10, 0.45), (0.25, 0.85)),
    "vivid": ((0.0, 1.0), (0.45, 0.9), (0.3, 0.9)),
    "earth": ((0.02, 0.17), (0.10, 0.55), (0.2, 0.9)),
}


def colour(rng: np.random.Generator, *moods: str) -> Colour:
    """A linear RGB colour from one of the families named."""
    ranges = _MOODS[moods[int(rng.integers(len(moods)))]]
    red, green, blue = colorsys.hsv_to_rgb(*(float(rng.uniform(*r)) for r in ranges))
    return (red**2.2, green**2.2, blue**2.2)


def scaled(base: Colour, factor: float) -> Colour:
    """The same hue, lighter or darker."""
    red, green, blue = (min(1.0, c * factor) for c in base)
    return (red, green, blue)


def turned(material: Material) -> Material:
    return replace(material, turned=not material.turned)


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(65536))


def _one_of(rng: np.random.Generator, weights: dict[str, float]) -> str:
    names = list(weights)
    share = np.array(list(weights.values()))
    return names[int(rng.choice(len(names), p=share / share.sum()))]


def wood(rng: np.random.Generator) -> Material:
    base = colour(rng, "wood")
    gloss = float(rng.uniform(0.0, 0.35))
    return Material(
        "wood", (base, scaled(base, rng.uniform(0.5, 0.8))), rng.uniform(0.1, 0.3), gloss=gloss, seed=_seed(rng)
    )


def painted(rng: np.random.Generator, *moods: str) -> Material:
    base = colour(rng, *(moods or ("pale", "pale", "grey", "muted", "muted", "vivid", "earth")))
    return Material("plain", (base, scaled(base, 0.93)), 0.5, gloss=float(rng.uniform(0.0, 0.4)), seed=_seed(rng))


def metal(rng: np.random.Generator) -> Material:
    base = colour(rng, "grey", "grey", "earth")
    return Material("plain", (base, scaled(base, 0.9)), 0.3, gloss=float(rng.uniform(0.4, 0.8)), seed=_seed(rng))


def hard(rng: np.random.Generator) -> Material:
    """The material of a table, a shelf, a chair's frame."""
    kind = _one_of(rng, {"wood": 0.55, "painted": 0.33, "metal": 0.07, "stone": 0.05})
    if kind == "stone":
        base = colour(rng, "pale", "grey")
        return Material("marble", (base, scaled(base, 0.5)), rng.uniform(0.2, 0.6), gloss=0.3, seed=_seed(rng))
    return {"wood": wood, "painted": painted, "metal": metal}[kind](rng)


def fabric(rng: np.random.Generator) -> Material:
    """Upholstery, bedspreads, curtains, cushions."""
    base = colour(rng, "pale", "grey", "muted", "muted", "vivid", "earth")
    other = colour(rng, "pale", "grey", "muted", "vivid") if rng.random() < 0.6 else scaled(base, 0.6)
    pattern = _one_of(
        rng, {"weave": 0.45, "stripes": 0.12, "plaid": 0.1, "dots": 0.06, "damask": 0.09, "leather": 0.1, "plain": 0.08}
    )
    gloss = float(rng.uniform(0.1, 0.4)) if pattern == "leather" else 0.0
    return Material(
        pattern, (base, other), rng.uniform(0.04, 0.25), gloss=gloss, turned=bool(rng.random() < 0.5), seed=_seed(rng)
    )


def wall_finish(rng: np.random.Generator) -> Material:
    pattern = _one_of(
        rng,
        {"plaster": 0.62, "stripes": 0.1, "damask": 0.08, "bricks": 0.06, "planks": 0.06, "tiles": 0.04, "dots": 0.04},
    )
    if pattern == "planks":
        base = colour(rng, "wood", "pale", "muted")
        pair = (base, scaled(base, 0.75))
        return Material("planks", pair, rng.uniform(0.08, 0.2), turned=bool(rng.random() < 0.6), seed=_seed(rng))
    base = colour(rng, "pale", "pale", "pale", "muted", "earth", "grey")
    if pattern == "bricks":
        base = colour(rng, "earth", "pale", "grey")
        return Material("bricks", (base, colour(rng, "pale", "grey")), rng.uniform(0.18, 0.26), seed=_seed(rng))
    if pattern == "tiles":
        pair = (base, scaled(base, rng.uniform(0.4, 0.8)))
        return Material("tiles", pair, rng.uniform(0.1, 0.25), gloss=0.3, seed=_seed(rng))
    other = scaled(base, rng.uniform(0.6, 0.9)) if rng.random() < 0.8 else colour(rng, "pale", "muted")
    return Material(pattern, (base, other), rng.uniform(0.08, 0.35), turned=False, seed=_seed(rng))


def floor_finish(rng: np.random.Generator) -> Material:
    pattern = _one_of(rng, {"planks": 0.5, "tiles": 0.16, "checker": 0.04, "carpet": 0.24, "plaster": 0.06})
    turn = bool(rng.random() < 0.5)
    if pattern == "planks":
        base = colour(rng, "wood", "wood", "wood", "grey")
        gloss = float(rng.uniform(0.05, 0.4))
        return Material(
            "planks", (base, scaled(base, 0.6)), rng.uniform(0.07, 0.18), gloss=gloss, turned=turn, seed=_seed(rng)
        )
    base = colour(rng, "pale", "grey", "earth", "muted")
    if pattern in ("tiles", "checker"):
        other = scaled(base, 0.5) if pattern == "tiles" else colour(rng, "grey", "earth")
        gloss = float(rng.uniform(0.1, 0.5))
        return Material(pattern, (base, other), rng.uniform(0.25, 0.6), gloss=gloss, seed=_seed(rng))
    return Material(pattern, (base, scaled(base, 0.6)), rng.uniform(0.02, 0.06), seed=_seed(rng))


def rug_finish(rng: np.random.Generator) -> Material:
    pattern = _one_of(rng, {"carpet": 0.3, "stripes": 0.2, "plaid": 0.15, "damask": 0.25, "dots": 0.1})
    scale = 0.04 if pattern == "carpet" else rng.uniform(0.15, 0.5)
    pair = (colour(rng, "muted", "vivid", "earth", "grey"), colour(rng, "pale", "muted", "vivid"))
    return Material(pattern, pair, scale, seed=_seed(rng))


def ceiling_finish(rng: np.random.Generator) -> Material:
    if rng.random() < 0.1:
        base = colour(rng, "wood", "pale")
        return Material("planks", (base, scaled(base, 0.7)), rng.uniform(0.1, 0.2), seed=_seed(rng))
    base = colour(rng, "pale") if rng.random() < 0.9 else colour(rng, "muted", "grey")
    return Material("plaster", (base, scaled(base, 0.9)), 0.2, seed=_seed(rng))


def glazed(rng: np.random.Generator) -> Material:
    """Small things: vases, cups, boxes, toys."""
    kind = rng.random()
    if kind < 0.15:
        return wood(rng)
    if kind < 0.35:
        pair = (colour(rng, "vivid", "muted", "pale"), colour(rng, "pale", "vivid", "grey"))
        return Material("stripes", pair, rng.uniform(0.03, 0.1), gloss=0.2, turned=True, seed=_seed(rng))
    return painted(rng)


def cardboard(rng: np.random.Generator) -> Material:
    base = colour(rng, "earth")
    return Material("plain", (base, scaled(base, 0.85)), 0.2, seed=_seed(rng))


def books(rng: np.random.Generator) -> Material:
    """Spines: every item, one book, takes its own colour from the few here."""
    moods = ("vivid", "muted", "earth", "grey", "pale")
    return Material("books", tuple(colour(rng, *moods) for _ in range(7)), 0.2, gloss=0.1, seed=_seed(rng))


def picture(rng: np.random.Generator, width: float, height: float) -> Material:
    """What hangs in a frame: `textures` turns the pattern and five colours into a landscape, shapes or a print."""
    pattern = _one_of(rng, {"landscape": 0.4, "blocks": 0.25, "blobs": 0.25, "print": 0.1})
    colours = tuple(colour(rng, "vivid", "muted", "pale", "earth", "grey") for _ in range(5))
    return Material(pattern, colours, extent=(width, height), gloss=float(rng.uniform(0, 0.5)), seed=_seed(rng))


def screen(rng: np.random.Generator, width: float, height: float) -> Material:
    """A television or monitor: off and glossy, or lit."""
    if rng.random() < 0.6:
        base = scaled(colour(rng, "grey"), 0.06)
        return Material("screen", (base, (0.25, 0.27, 0.3)), extent=(width, height), gloss=0.9, seed=_seed(rng))
    lit = picture(rng, width, height)
    return replace(lit, gloss=0.4, glow=float(rng.uniform(0.4, 1.0)))


def outdoors(rng: np.random.Generator, brightness: float) -> Material:
    """The view through every window of a room; `brightness` 0.05 (night) to about 3 (noon)."""
    sky = colour(rng, "pale", "pale", "muted")
    leaves = (rng.uniform(0.06, 0.25), rng.uniform(0.11, 0.22), rng.uniform(0.03, 0.09))
    blue = (sky[0] * 0.55, sky[1] * 0.75, sky[2])
    colours = (
        blue,
        (0.9, 0.9, 0.88),
        colour(rng, "grey", "earth"),
        scaled(colour(rng, "earth", "muted"), 0.6),
        leaves,
    )
    return Material("outdoors", colours, scale=rng.uniform(0.06, 0.2), glow=brightness, seed=_seed(rng))


def lampshade(rng: np.random.Generator, glow: float) -> Material:
    base = colour(rng, "pale", "earth")
    return Material("plain", (base, scaled(base, 0.9)), 0.2, glow=glow, seed=_seed(rng))
