"""The catalogue of styles and sound pools the composer draws from.

Kept as data: adding a genre means adding a row. Weights favour band and electronic music, which
is what listeners stream most, but every General MIDI program stays reachable.
"""

from __future__ import annotations

from dataclasses import dataclass

POOLS: dict[str, tuple[int, ...]] = {
    "piano": (0, 0, 1, 2, 3),
    "epiano": (4, 5, 7),
    "keys": (0, 1, 4, 5, 6, 7, 16, 17, 18),
    "bell": (8, 9, 10, 11, 12, 13, 14, 15, 98, 112, 114),
    "organ": (16, 17, 18, 19, 20),
    "church": (19, 19, 20),
    "reed": (20, 21, 22, 23),
    "acoustic": (24, 25, 25, 24, 105),
    "clean": (26, 27, 28),
    "drive": (29, 30, 30),
    "bass": (33, 34, 33, 32, 35),
    "upright": (32, 32, 35),
    "slap": (36, 37, 34),
    "synthbass": (38, 39, 38, 39, 81, 87),
    "strings": (48, 49, 50, 51, 44, 45),
    "solo_string": (40, 41, 42, 43, 110),
    "choir": (52, 53, 54, 85, 91),
    "brass": (56, 57, 60, 61, 62, 63),
    "solo_brass": (56, 57, 58, 59, 60),
    "sax": (64, 65, 66, 67),
    "wind": (68, 69, 70, 71, 72, 73, 74, 75),
    "flute": (72, 73, 74, 75, 76, 77, 78, 79),
    "synlead": (80, 81, 81, 82, 83, 84, 86, 87),
    "chip": (80, 80, 81, 82),
    "pad": (88, 89, 90, 91, 92, 93, 94, 95, 50, 51),
    "fx": (96, 97, 98, 99, 100, 101, 102, 103),
    "ethnic": (104, 105, 106, 107, 108, 109, 110, 111, 15, 77, 78),
    "percussive": (47, 112, 113, 114, 115, 116, 117, 118),
    "harp": (46, 46, 45, 8, 11),
    "low_string": (42, 43, 43, 48),
    "low_brass": (58, 57, 70),
}

MAJORISH = ("major", "major", "mixolydian", "lydian", "major_pentatonic")
MINORISH = ("minor", "minor", "dorian", "phrygian", "harmonic_minor", "minor_pentatonic")
ANY = (*MAJORISH, *MINORISH, "blues")
EXOTIC = ("phrygian", "harmonic_minor", "double_harmonic", "hirajoshi", "dorian")

# (role, sound pool, probability)
Slot = tuple[str, str, float]


@dataclass(frozen=True)
class Style:
    """A genre: what may be drawn for tempo, meter, harmony, rhythm and instruments."""

    name: str
    weight: float
    tempo: tuple[int, int]
    slots: tuple[Slot, ...]
    grooves: tuple[str, ...] = ()
    bass: tuple[str, ...] = ("whole", "roots8", "fifths")
    comp: tuple[str, ...] = ("block", "broken", "eighths")
    scales: tuple[str, ...] = ANY
    meters: tuple[float, ...] = (4.0,)
    chords: tuple[str, ...] = ("triad",)
    swing: float = 0.0
    swing_unit: float = 0.5
    kits: tuple[int, ...] = (0, 8, 16)
    machine: bool = False
    rubato: bool = False
    pedal: bool = False


SEVENTHS = ("seventh", "seventh", "ninth", "triad")
MIXED = ("triad", "triad", "triad", "sus2", "sus4", "seventh")
POWER = ("power", "power", "triad")

STYLES: tuple[Style, ...] = (
    Style("rock", 8, (85, 170), (("bass", "bass", 1), ("comp", "drive", 1), ("comp", "clean", .5),
          ("lead", "drive", .6), ("pad", "organ", .3), ("lead", "synlead", .3)),
          ("rock", "rock2", "punk", "breakbeat"), ("roots8", "dotted", "fifths"),
          ("chug", "eighths", "synco", "strum"), ANY, (4.0, 4.0, 3.0), POWER),
    Style("metal", 4, (100, 190), (("bass", "bass", 1), ("comp", "drive", 1), ("comp", "drive", .8),
          ("lead", "drive", .6), ("pad", "choir", .3)), ("metal", "rock", "halftime", "punk"),
          ("roots8", "sixteenths"), ("chug", "tremolo", "synco"), MINORISH, (4.0, 4.0, 3.5), POWER,
          kits=(16, 0)),
    Style("pop", 10, (70, 130), (("bass", "bass", 1), ("comp", "keys", .8), ("comp", "acoustic",
          .6),
          ("pad", "pad", .6), ("lead", "synlead", .6), ("arp", "bell", .4), ("pad", "strings", .5),
          ("counter", "choir", .3)), ("rock", "disco", "hiphop", "ballad", "halftime"),
          ("roots8", "dotted", "whole", "octaves"), ("block", "strum", "synco", "broken"),
          ANY, (4.0,), MIXED),
    Style("ballad", 6, (55, 90), (("bass", "bass", .8), ("comp", "piano", 1), ("pad", "strings",
          .8),
          ("lead", "flute", .4), ("lead", "sax", .4), ("pad", "choir", .4)),
          ("ballad", "halftime", "six_rock"), ("whole", "dotted"), ("broken", "block", "strum"),
          ANY, (4.0, 4.0, 3.0), MIXED),
    Style("funk", 6, (90, 125), (("bass", "slap", 1), ("comp", "clean", .9), ("comp", "epiano", .6),
          ("stab", "brass", .8), ("lead", "sax", .5), ("pad", "organ", .3)), ("funk", "breakbeat"),
          ("funk", "octaves"), ("synco", "tremolo", "offbeat"), ("dorian", "mixolydian", "blues"),
          (4.0,), SEVENTHS, .12, .25, (0, 8, 16, 25)),
    Style("disco", 4, (105, 130), (("bass", "slap", 1), ("comp", "clean", .8), ("pad", "strings",
          .9),
          ("stab", "brass", .6), ("lead", "choir", .4), ("comp", "epiano", .4)), ("disco", "house"),
          ("octaves", "funk"), ("synco", "offbeat"), ANY, (4.0,), SEVENTHS),
    Style("house", 6, (116, 130), (("bass", "synthbass", 1), ("comp", "keys", .8), ("pad", "pad",
          .7),
          ("arp", "synlead", .5), ("lead", "synlead", .4), ("pad", "choir", .3)), ("house",
          "disco"),
          ("offbeat", "octaves", "funk"), ("offbeat", "synco"), MINORISH, (4.0,), SEVENTHS,
          .1, .25, (24, 25, 0), True),
    Style("techno", 5, (122, 150), (("bass", "synthbass", 1), ("arp", "synlead", .7),
          ("pad", "fx", .5), ("stab", "pad", .6), ("lead", "chip", .3)), ("techno", "electro"),
          ("sixteenths", "offbeat"), ("synco",), MINORISH, (4.0,), POWER, kits=(24, 25),
          machine=True),
    Style("trance", 4, (128, 145), (("bass", "synthbass", 1), ("arp", "synlead", 1), ("pad", "pad",
          1),
          ("lead", "synlead", .7), ("pad", "choir", .4)), ("trance", "techno"),
          ("offbeat", "sixteenths"), ("eighths",), MINORISH, (4.0,), MIXED, kits=(24, 25),
          machine=True),
    Style("dnb", 4, (160, 180), (("bass", "synthbass", 1), ("pad", "pad", .8), ("arp", "epiano",
          .4),
          ("lead", "synlead", .5), ("stab", "strings", .3)), ("dnb", "breakbeat"),
          ("sub", "dotted", "funk"), ("synco",), MINORISH, (4.0,), SEVENTHS, kits=(0, 16, 24),
          machine=True),
    Style("hiphop", 6, (70, 100), (("bass", "synthbass", 1), ("comp", "epiano", .7),
          ("arp", "bell", .4), ("pad", "strings", .5), ("lead", "flute", .3), ("stab", "brass",
          .3)),
          ("hiphop", "trap", "breakbeat", "halftime"), ("sub", "funk", "dotted"),
          ("block", "synco", "broken"), MINORISH, (4.0,), SEVENTHS, .2, .25, (25, 8, 0, 24)),
    Style("reggae", 3, (65, 95), (("bass", "bass", 1), ("comp", "clean", 1), ("comp", "organ", .8),
          ("stab", "brass", .4), ("lead", "sax", .3)), ("reggae", "ska"), ("dotted", "funk"),
          ("offbeat",), ANY, (4.0,), MIXED, .15, .25),
    Style("ska", 2, (120, 170), (("bass", "bass", 1), ("comp", "clean", 1), ("stab", "brass", .9),
          ("lead", "solo_brass", .7)), ("ska", "punk"), ("walking", "roots8"), ("offbeat",),
          MAJORISH, (4.0,)),
    Style("bossa", 4, (80, 140), (("bass", "upright", 1), ("comp", "acoustic", 1), ("lead",
          "flute", .6),
          ("pad", "strings", .4), ("lead", "sax", .3), ("comp", "epiano", .3)),
          ("bossa", "light", "latin_perc"), ("fifths", "dotted"), ("synco", "charleston"), ANY,
          (4.0,), SEVENTHS),
    Style("salsa", 4, (85, 125), (("bass", "bass", 1), ("comp", "piano", 1), ("stab", "brass", .9),
          ("lead", "solo_brass", .6), ("lead", "flute", .3)), ("salsa", "samba", "latin_perc"),
          ("dotted", "funk"), ("montuno", "synco"), ANY, (4.0,), SEVENTHS),
    Style("swing", 5, (100, 190), (("bass", "upright", 1), ("comp", "piano", .9), ("lead", "sax",
          .7),
          ("stab", "brass", .6), ("lead", "solo_brass", .5), ("comp", "clean", .4)),
          ("swing", "brushes"), ("walking",), ("charleston", "synco"), ANY, (4.0, 4.0, 3.0),
          SEVENTHS, .33, .5, (32, 40, 0)),
    Style("blues", 4, (65, 130), (("bass", "bass", 1), ("comp", "keys", .8), ("lead", "clean", .7),
          ("lead", "reed", .4), ("comp", "drive", .4)), ("shuffle", "swing"), ("walking", "roots8"),
          ("eighths", "charleston"), ("blues", "mixolydian"), (4.0,), SEVENTHS, .33, .5),
    Style("country", 4, (85, 140), (("bass", "bass", 1), ("comp", "acoustic", 1), ("lead", "clean",
          .6),
          ("lead", "solo_string", .5), ("arp", "acoustic", .4), ("lead", "reed", .2)),
          ("train", "rock", "waltz"), ("fifths",), ("strum", "oompah"), MAJORISH, (4.0, 4.0, 3.0)),
    Style("folk", 5, (75, 140), (("comp", "acoustic", 1), ("lead", "flute", .6), ("bass",
          "upright", .6),
          ("lead", "solo_string", .5), ("comp", "reed", .4)), ("jig", "light", "waltz"),
          ("fifths", "whole"), ("strum", "broken"), ANY, (4.0, 3.0, 3.0), MIXED),
    Style("waltz", 3, (90, 180), (("bass", "upright", .6), ("comp", "keys", 1), ("lead", "reed",
          .6),
          ("pad", "strings", .6), ("lead", "wind", .5)), ("waltz", "jazz_waltz"), ("whole",),
          ("oompah", "block"), ANY, (3.0,), MIXED, kits=(0, 40, 48)),
    Style("march", 3, (95, 130), (("bass", "low_brass", 1), ("comp", "brass", .8), ("lead",
          "brass", 1),
          ("lead", "flute", .7), ("counter", "sax", .4), ("arp", "wind", .3)), ("march", "train"),
          ("fifths",), ("offbeat", "oompah"), MAJORISH, (4.0, 2.0), kits=(48, 0)),
    Style("orchestral", 8, (60, 150), (("pad", "strings", 1), ("voice", "low_string", .9),
          ("lead", "strings", .7), ("lead", "wind", .7), ("stab", "brass", .6), ("counter",
          "brass", .6),
          ("arp", "harp", .5), ("pad", "choir", .4), ("bass", "low_string", .7),
          ("bass", "percussive", .3)), ("timpani", "march", "tribal"), ("whole", "roots8",
          "fifths"),
          ("tremolo", "block"), ANY, (4.0, 3.0, 4.0, 5.0), MIXED, kits=(48,), rubato=True),
    Style("quartet", 4, (60, 140), (("lead", "solo_string", 1), ("voice", "solo_string", 1),
          ("voice", "solo_string", .9), ("bass", "low_string", 1)), (), ("whole", "fifths",
          "roots8"),
          ("block",), ANY, (4.0, 3.0), MIXED, rubato=True),
    Style("winds", 4, (60, 150), (("lead", "wind", 1), ("voice", "wind", 1), ("counter", "wind",
          .8),
          ("voice", "wind", .6), ("bass", "low_brass", .7)), (), ("whole", "fifths"), ("block",),
          ANY, (4.0, 3.0), MIXED, rubato=True),
    Style("church", 4, (55, 100), (("comp", "church", .8), ("voice", "church", .9),
          ("pad", "choir", .6), ("bass", "church", .8), ("lead", "church", .5)), (),
          ("whole", "fifths", "walking"), ("block",), ANY, (4.0, 3.0), MIXED, rubato=True),
    Style("choir", 3, (55, 90), (("voice", "choir", 1), ("voice", "choir", 1), ("lead", "choir",
          .8),
          ("bass", "choir", .8), ("pad", "strings", .3)), (), ("whole",), ("block",), ANY,
          (4.0, 3.0), MIXED, rubato=True),
    Style("piano", 7, (55, 160), (("comp", "piano", 1), ("lead", "piano", 1), ("bass", "piano",
          .6)),
          (), ("whole", "fifths", "arpeggio"), ("broken", "alberti", "block", "oompah", "synco"),
          ANY,
          (4.0, 3.0, 4.0), MIXED, rubato=True, pedal=True),
    Style("guitar", 4, (60, 140), (("comp", "acoustic", 1), ("lead", "acoustic", .6),
          ("arp", "acoustic", .4)), (), ("whole",), ("strum", "broken", "alberti"), ANY, (4.0, 3.0),
          MIXED, rubato=True),
    Style("ambient", 6, (50, 90), (("pad", "pad", 1), ("drone", "pad", .8), ("pad", "choir", .5),
          ("lead", "bell", .4), ("arp", "fx", .4), ("drone", "fx", .3), ("counter", "flute", .3)),
          ("light", "halftime"), ("sub", "whole"), ("block",), ANY, (4.0,), SEVENTHS, rubato=True),
    Style("chip", 4, (100, 180), (("bass", "chip", 1), ("lead", "chip", 1), ("arp", "chip", .9),
          ("counter", "chip", .5)), ("rock", "electro", "punk"), ("octaves", "roots8", "arpeggio"),
          ("eighths",), ANY, (4.0, 3.0), kits=(24, 25), machine=True),
    Style("ethnic", 5, (65, 140), (("lead", "ethnic", 1), ("drone", "ethnic", .6), ("comp",
          "ethnic", .5),
          ("arp", "ethnic", .4), ("bass", "upright", .4), ("lead", "flute", .4)),
          ("afro", "tribal", "latin_perc", "jig"), ("whole", "fifths", "dotted"),
          ("strum", "synco", "broken"), EXOTIC, (4.0, 3.0, 3.5), MIXED),
    Style("soundtrack", 5, (70, 150), (("pad", "strings", 1), ("arp", "synlead", .6),
          ("bass", "synthbass", .8), ("stab", "low_brass", .6), ("pad", "choir", .6),
          ("arp", "harp", .4), ("lead", "brass", .5), ("bass", "percussive", .4)),
          ("tribal", "halftime", "timpani", "electro"), ("roots8", "sub", "sixteenths"),
          ("tremolo",),
          MINORISH, (4.0, 3.0), MIXED, kits=(48, 16)),
    Style("percussion", 4, (80, 160), (), ("afro", "samba", "tribal", "latin_perc", "funk", "march",
          "rock2", "dnb", "salsa", "jig"), meters=(4.0, 4.0, 3.0), kits=(0, 16, 24, 25, 40, 48,
          56)),
    Style("anything", 5, (55, 190), (("bass", "any", .8), ("comp", "any", .8), ("lead", "any", .9),
          ("arp", "any", .5), ("pad", "any", .6), ("voice", "any", .3), ("stab", "any", .3)),
          ("rock", "afro", "electro", "light", "waltz", "hiphop", "tribal"),
          ("whole", "roots8", "funk", "walking"), ("block", "synco", "broken", "strum"), ANY,
          (4.0, 3.0, 5.0, 3.5), MIXED),
)  # fmt: skip
